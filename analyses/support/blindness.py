"""Ground truth for a planted model: the layers in which text reads the audio, in plain transformers.

One layer after the other is blinded: no token after the audio sees it there, by the mask of the model's own
eager attention. Then all layers but one are. None of the package's code for editing or reading attention is
involved.
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
from mata_interp.fusion.share_window import MIN_EFFECT, WORTH
from mata_interp.fusion.windows import DRAWS, draw_profiles
from mata_interp.lalm import Prompt
from mata_interp.lalm.rows.caches import branch_cache
from mata_interp.lalm.scoring import option_logprobs
from mata_interp.statistics import margin as option_margin
from mata_interp.statistics import proportion

__all__ = ["Truth", "blinded", "blindness", "margins"]

BATCH = 100


@dataclass(frozen=True, eq=False)
class Truth:
    """What blinding layers costs.

    Attributes:
        cost: [layers], the fall of the margin when one layer is blinded, divided by that when all are.
        gain: [layers], the rise of the margin when all layers but one are blinded instead of all, divided by
            the same.
        low, high: [layers], ends of the 95 % bootstrap interval over clips of the mean of the two.
        total: the fall when all are blinded, nats, and its interval.
        accuracy: fraction of right answers without blinding, and its interval.
    """

    cost: np.ndarray
    gain: np.ndarray
    low: np.ndarray
    high: np.ndarray
    total: tuple[float, float, float]
    accuracy: tuple[float, float, float]

    @property
    def counts(self) -> np.ndarray:
        """What each layer counts, [layers]: the mean of its cost and its gain."""
        return (self.cost + self.gain) / 2

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that count at least a fifth of what the one that counts most does."""
        most = self.counts.max()
        return tuple(np.flatnonzero(self.counts >= WORTH * most).tolist()) if most > 0 else ()


def blindness(lalm: mi.LALM, items: Any, seed: int = 0) -> Truth:
    """The cost of blinding each layer, on items with options and right answers.

    If blinding all layers costs less than 0.1 nats, no layer counts and all numbers of layers are 0.
    """
    every = tuple(range(lalm.num_layers))
    clips = [item.cluster for item in items]
    intact, blind = margins(lalm, items, [(), every])
    right = proportion(intact > 0, clips)
    accuracy = float((intact > 0).mean()), float(right.low), float(right.high)
    total = _interval(intact - blind, clips, seed)
    if total[0] < MIN_EFFECT:
        nothing = np.zeros(lalm.num_layers)
        return Truth(nothing, nothing, nothing, nothing, total, accuracy)
    one = [(layer,) for layer in every]
    all_but_one = [tuple(other for other in every if other != layer) for layer in every]
    without, alone = np.split(margins(lalm, items, [*one, *all_but_one]), 2)
    cost, gain = intact - without, alone - blind  # (layers, items)
    columns = np.concatenate([cost, gain, (cost + gain) / 2, (intact - blind)[None]]).T
    mean, drawn = _mean_and_resamples(columns, clips, seed)
    counts = drawn[:, 2 * len(every) : -1] / drawn[:, -1:]
    low, high = np.percentile(counts, [2.5, 97.5], axis=0)
    costs, gains = (mean[: 2 * len(every)] / mean[-1]).reshape(2, len(every))
    return Truth(costs, gains, low, high, total, accuracy)


def _mean_and_resamples(
    columns: np.ndarray, clips: Sequence[str], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means over items and of resamples of clips; the mean of a single clip stands for its resamples."""
    mean, drawn = draw_profiles(columns, clips, DRAWS, seed)
    return mean, drawn if len(drawn) else mean[None]


def _interval(values: np.ndarray, clips: Sequence[str], seed: int) -> tuple[float, float, float]:
    """A mean over items and its 95 % bootstrap interval over clips."""
    mean, drawn = _mean_and_resamples(values[:, None], clips, seed)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(mean[0]), float(low), float(high)


def margin(lalm: mi.LALM, items: Any, blind: tuple[int, ...]) -> np.ndarray:
    """log p(right option) - log p(best wrong one) of each item, nats, with these layers blinded."""
    return margins(lalm, items, [blind])[0]


def margins(lalm: mi.LALM, items: Any, blinds: Sequence[tuple[int, ...]]) -> np.ndarray:
    """The margins of all items for each set of blinded layers: [sets, items], nats.

    Audio tokens and what comes before them do not see the text, so that blinding changes nothing there: they
    run once for a batch, and only the tokens from the first text token on run for each set. Of these, the
    first layers run again only if they are blinded otherwise than in a run with none or all of them blinded.
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
        last = tokens.shape[1] - 1

        def run(cache: DynamicCache, blind: tuple[int, ...], first_layers: Sequence[Any] = ()) -> list[Any]:
            """The text before the last token, in all layers or after those whose outputs are known."""
            with blinded(lalm.model, prompt, blind), resumed(decoder, first_layers) as outputs:
                if last > first:
                    decoder(
                        inputs_embeds=embeddings[0][:, first:last],
                        attention_mask=mask[:, :last],
                        past_key_values=cache,
                        use_cache=True,
                    )
            return outputs

        known = []  # layers that are blinded, the layers' outputs, and the cache
        for blind in ((), tuple(range(lalm.num_layers))):
            cache = branch_cache(past)
            known.append((blind, run(cache, blind), cache))
        for blind in blinds:
            same, outputs, filled = max(
                ((_shared_layers(blind, other, lalm.num_layers), *rest) for other, *rest in known),
                key=lambda option: option[0],
            )
            cache = branch_cache(past)
            run(cache, blind, outputs[:same])
            cache.layers[:same] = branch_cache(filled).layers[:same]
            with blinded(lalm.model, prompt, blind):
                margins.append(option_margin(option_logprobs(lalm.model, prompt, options, cache), right))
    return np.array(margins)


def _shared_layers(blind: Sequence[int], other: Sequence[int], count: int) -> int:
    """Number of first layers that both sets blind alike.

    >>> _shared_layers((2,), (), 5), _shared_layers((0, 1, 3), (0, 1, 2, 3), 5), _shared_layers((), (), 5)
    (2, 2, 5)
    """
    return min({*blind} ^ {*other}, default=count)


@contextmanager
def resumed(decoder: Any, outputs: Sequence[Any]) -> Iterator[list[Any]]:
    """Inside, the first layers give these outputs and compute nothing; yields the outputs of all layers."""
    given, kept = list(outputs), []
    for layer, output in zip(decoder.layers, given, strict=False):
        layer.forward = lambda *args, output=output, **kwargs: output
    handles = [layer.register_forward_hook(lambda m, args, out: kept.append(out)) for layer in decoder.layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
        for layer, _ in zip(decoder.layers, given, strict=False):
            del layer.forward


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
