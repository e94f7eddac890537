"""Ground truth for a planted model: the layers in which text needs to read the audio, in plain transformers.

One layer after the other is blinded: no token after the audio sees it there, by the mask of the model's own
eager attention. None of the package's code for editing or reading attention is involved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

import mata_interp as mi
from mata_interp.fusion.share_window import MIN_EFFECT
from mata_interp.fusion.windows import DRAWS, draw_profiles
from mata_interp.lalm import Prompt
from mata_interp.lalm.rows.caches import branch_cache
from mata_interp.lalm.scoring import option_logprobs
from mata_interp.statistics import margin as option_margin
from mata_interp.statistics import proportion

__all__ = ["MATTERS", "Truth", "blinded", "blindness", "margins"]

MATTERS = 0.1  # a layer matters if blinding it costs this part of what blinding all layers costs
BATCH = 100


@dataclass(frozen=True, eq=False)
class Truth:
    """What blinding layers costs.

    Attributes:
        cost: [layers], the fall of the margin when one layer is blinded, divided by that when all are.
        low, high: [layers], ends of its 95 % bootstrap interval over clips.
        total: the fall when all are blinded, nats, and its interval.
        accuracy: fraction of right answers without blinding, and its interval.
    """

    cost: np.ndarray
    low: np.ndarray
    high: np.ndarray
    total: tuple[float, float, float]
    accuracy: tuple[float, float, float]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that matter."""
        return tuple(int(layer) for layer in np.flatnonzero(self.cost >= MATTERS))


def blindness(lalm: mi.LALM, items: Any, seed: int = 0) -> Truth:
    """The cost of blinding each layer, on items with options and right answers.

    If blinding all layers costs less than 0.1 nats, no layer matters and all costs are 0.
    """
    every = tuple(range(lalm.num_layers))
    values = margins(lalm, items, [(), *((layer,) for layer in every), every])  # (2 + layers, items)
    lost = (values[0] - values[1:]).T  # (items, layers + 1)
    clips = [item.cluster for item in items]
    mean, drawn = draw_profiles(lost, clips, DRAWS, seed)
    drawn = drawn if len(drawn) else mean[None]  # a single clip has no resamples
    least, most = np.percentile(drawn[:, -1], [2.5, 97.5])
    total = float(mean[-1]), float(least), float(most)
    right = proportion(values[0] > 0, clips)
    accuracy = float((values[0] > 0).mean()), float(right.low), float(right.high)
    if total[0] < MIN_EFFECT:
        nothing = np.zeros(lalm.num_layers)
        return Truth(nothing, nothing, nothing, total, accuracy)
    low, high = np.percentile(drawn[:, :-1] / drawn[:, -1:], [2.5, 97.5], axis=0)
    return Truth(mean[:-1] / total[0], low, high, total, accuracy)


def margin(lalm: mi.LALM, items: Any, blind: tuple[int, ...]) -> np.ndarray:
    """log p(right option) - log p(best wrong one) of each item, nats, with these layers blinded."""
    return margins(lalm, items, [blind])[0]


def margins(lalm: mi.LALM, items: Any, blinds: Sequence[tuple[int, ...]]) -> np.ndarray:
    """The margins of all items for each set of blinded layers: [sets, items], nats.

    Audio tokens and what comes before them do not see the text, so that blinding changes nothing there: they
    run once for a batch, and only the tokens from the first text token on run for each set.
    """
    return np.concatenate(
        [_batch_margins(lalm, items[begin : begin + BATCH], blinds) for begin in range(0, len(items), BATCH)],
        1,
    )


@torch.no_grad()
def _batch_margins(lalm: mi.LALM, batch: Any, blinds: Sequence[tuple[int, ...]]) -> np.ndarray:
    prompt = lalm.prepare(lalm.prompt(batch))
    tokens, mask = prompt.inputs["input_ids"], prompt.inputs["attention_mask"]
    options = [lalm.option_tokens(item, item.choices) for item in batch]
    right = [item.choices.index(item.answer) for item in batch]
    text = ~prompt.groups["audio"] & (prompt.groups["audio"].cumsum(1) > 0)
    first = int(text.any(0).nonzero()[0])  # rows whose audio ends later run some audio tokens again
    margins, embeddings, decoder = [], [], lalm.model.get_decoder()
    with eager(lalm.model):
        past = DynamicCache()  # without a config every layer keeps all keys, so that it can be cropped
        handle = decoder.register_forward_pre_hook(
            lambda module, args, kwargs: embeddings.append(kwargs["inputs_embeds"]), with_kwargs=True
        )
        lalm.model(**prompt.inputs, past_key_values=past, use_cache=True)
        handle.remove()
        past.crop(first - tokens.shape[1])
        for blind in blinds:
            with blinded(lalm.model, prompt, blind):
                cache = branch_cache(past)
                last = tokens.shape[1] - 1
                if last > first:
                    decoder(
                        inputs_embeds=embeddings[0][:, first:last],
                        attention_mask=mask[:, :last],
                        past_key_values=cache,
                        use_cache=True,
                    )
                margins.append(option_margin(option_logprobs(lalm.model, prompt, options, cache), right))
    return np.array(margins)


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Inside, the decoder uses transformers' eager attention."""
    before = model.get_decoder().config._attn_implementation
    model.set_attn_implementation({"text_config": "eager"})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": before})


@contextmanager
def blinded(model: Any, prompt: Prompt, layers: tuple[int, ...]) -> Iterator[None]:
    """Inside, no token after the first audio token sees audio in these layers, unless it is audio itself."""
    audio = prompt.groups["audio"]  # (B, P)
    text = ~audio & (audio.cumsum(1) > 0)

    def hook(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        mask, states = kwargs["attention_mask"], kwargs["hidden_states"]
        queries, past = states.shape[1], kwargs["past_key_values"].get_seq_length(module.layer_idx)
        length = past + queries
        # answer tokens come after the prompt and are text
        keys = torch.nn.functional.pad(audio, (0, length - audio.shape[1]))[:, -mask.shape[-1] :]
        text_queries = torch.nn.functional.pad(text, (0, length - text.shape[1]), value=True)[:, -queries:]
        hidden = text_queries[:, None, :, None] & keys[:, None, None, :]
        return args, {**kwargs, "attention_mask": mask.masked_fill(hidden, torch.finfo(mask.dtype).min)}

    blocks = [model.get_decoder().layers[layer].self_attn for layer in layers]
    handles = [block.register_forward_pre_hook(hook, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
