"""How likely a model finds each option as the answer: the prompt read once, the options run on its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from mata_interp.interventions import Editing

from .discovery.hooks import hidden_states_in, replace_hidden_states, temporary_hooks
from .discovery.structure import decoder_of
from .prompting.prompts import Prompt
from .rows.caches import (
    branch_cache,
    crop_last_token,
    has_state_layers,
    position_ids_after,
    preallocate,
    set_prompt_positions,
)

__all__ = ["OptionScores", "last_position_only", "option_logprobs", "read", "score_options"]

Tokens = Sequence[int]


@dataclass(frozen=True, eq=False)
class OptionScores:
    """Log-probabilities of C options (the most any prompt has) for B prompts.

    Attributes:
        logprob: log p(option | prompt), natural, summed over its tokens: float64 [B, C], NaN where there is
            none.
        tokens: number of tokens of each option, int [B, C], 0 where there is none.
        dose: of an intervention, its mean over edited layers, heads and queries (those of the last prompt
            token and of all options' tokens): name -> float64 [B]. Empty without one.
    """

    logprob: np.ndarray
    tokens: np.ndarray
    dose: dict[str, np.ndarray] = field(default_factory=dict)


def read(model: Any, prompt: Prompt, room: int = 0) -> Any:
    """The cache of all tokens of the prompts but their last, which every intervention leaves as they are.

    Edits reach no query before the last prompt token, so one reading serves any number of interventions
    (those with ``queries="text"`` excepted).
    None where the model cannot step back by that token: its cache has let go of what it held before (a full
    sliding window, a recurrent state), or the token is a piece of audio. ``room``: for how many tokens to
    leave place, that last one and an option's.
    """
    with last_position_only(model), _positions(model) as seen:
        cache = model(**prompt.inputs, use_cache=True).past_key_values
    if prompt.groups["audio"][:, -1].any() or (back := crop_last_token(cache)) is None:
        return None
    return preallocate(set_prompt_positions(back, seen[0]), room)


def option_logprobs(
    model: Any,
    prompt: Prompt,
    options: Sequence[Sequence[Tokens]],
    cache: Any = None,
    editing: Editing | None = None,
) -> np.ndarray:
    """log p of every option, teacher-forced: float64 [B, C].

    The last token of the prompts runs on what was read before; then the first option of every prompt runs on
    the keys and values cached so far, then the second: memory stays that of the batch, however many options
    there are. The options' last tokens are only predicted, so options of one token need no second run at all.

    Args:
        model: a transformers model; attention edits are made around this function, by the instrument.
        prompt: B left-padded prompts.
        options: of each prompt, its options' tokens, at least one each.
        cache: what `read` gave for these prompts; None: they are read here, in whole.
        editing: told which queries are padding.
    """
    tokens = prompt.inputs["input_ids"]
    mask = prompt.inputs.get("attention_mask", torch.ones_like(tokens))
    logprob = np.full((prompt.size, max(map(len, options))), np.nan)
    last: dict[str, Any] = dict(prompt.inputs)
    if cache is not None:
        last = {"input_ids": tokens[:, -1:], "attention_mask": mask, "past_key_values": branch_cache(cache)}
        last |= position_ids_after(cache, 0, 1)
    with last_position_only(model), _positions(model) as seen:
        out = model(**last, use_cache=True)
    grown = set_prompt_positions(out.past_key_values, seen[0])
    first = out.logits[:, -1].float().log_softmax(-1).double().cpu().numpy()  # (B, V)
    for row, choices in enumerate(options):
        logprob[row, : len(choices)] = [first[row, option[0]] for option in choices]

    # Longest options first, so that those run together are of like length.
    order = [sorted(range(len(choices)), key=lambda c: -len(choices[c])) for choices in options]
    for slot in range(logprob.shape[1]):
        chosen = [row[slot] if slot < len(row) else None for row in order]
        texts = [() if c is None else options[row][c] for row, c in enumerate(chosen)]
        lengths = torch.tensor([max(len(text) - 1, 0) for text in texts])
        width = int(lengths.max())
        if width == 0:
            break
        real = torch.arange(width) < lengths[:, None]  # (B, W)
        given, asked = torch.zeros(2, prompt.size, width, dtype=torch.long)
        for row, text in enumerate(texts):
            given[row, : lengths[row]] = torch.tensor(text[:-1], dtype=torch.long)
            asked[row, : lengths[row]] = torch.tensor(text[1:], dtype=torch.long)
        # some recurrent layers begin anew when given several tokens at once
        step = 1 if has_state_layers(grown) else width
        option, told = branch_cache(grown), []
        for begin in range(0, width, step):
            end = begin + step
            if editing is not None:
                editing.counted = real[:, begin:end]
            out = model(
                input_ids=given[:, begin:end].to(tokens.device),
                attention_mask=torch.cat([mask, mask.new_ones(prompt.size, end)], 1),
                past_key_values=option,
                use_cache=True,
                **position_ids_after(grown, 1 + begin, step),
            )
            option = out.past_key_values
            told.append(out.logits)
        logits = torch.cat(told, 1)
        picked = logits.float().log_softmax(-1).gather(2, asked.to(tokens.device)[:, :, None])[:, :, 0]
        sums = picked.double().cpu().masked_fill(~real, 0.0).sum(1).numpy()
        for row, c in enumerate(chosen):
            if c is not None:
                logprob[row, c] += sums[row]
    return logprob


def score_options(
    model: Any,
    prompt: Prompt,
    options: Sequence[Sequence[Tokens]],
    editings: Sequence[Editing | None],
    run: Callable[[Callable[[], np.ndarray], Editing | None], np.ndarray],
) -> list[OptionScores]:
    """The scores under each editing, the prompts read once for all that share the reading.

    Args:
        run: runs a forward with an editing in it, by the instrument.
    """
    lengths = np.zeros((prompt.size, max(map(len, options))), dtype=int)
    for row, tokens in enumerate(options):
        lengths[row, : len(tokens)] = [len(option) for option in tokens]
    cache = read(model, prompt, room=int(lengths.max()))
    scores = []
    for editing in editings:
        shared = cache if editing is None or editing.shares else None
        forward = partial(option_logprobs, model, prompt, options, shared, editing)
        scores.append(OptionScores(run(forward, editing), lengths, editing.dose() if editing else {}))
    return scores


@contextmanager
def _positions(model: Any) -> Iterator[list[Any]]:
    """The position ids that the decoder is called with, of each call; None where it counts itself."""
    seen: list[Any] = []
    record = lambda args, kwargs: seen.append(kwargs.get("position_ids"))  # noqa: E731
    with temporary_hooks([(decoder_of(model), record)]):
        yield seen


def output_head(model: Any) -> Any:
    """What makes logits of the decoder's output; None where no part of the model names it.

    Where a wrapper does not name its head, the language model in it does.
    """
    parts = (part for part in model.modules() if hasattr(part, "get_output_embeddings"))
    return next((head for part in parts if (head := part.get_output_embeddings()) is not None), None)


@contextmanager
def last_position_only(model: Any) -> Iterator[None]:
    """Keep the output head from computing logits of positions nobody asks for: T times fewer."""
    head = output_head(model)
    if head is None:
        yield
        return

    def cut(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return replace_hidden_states(args, kwargs, hidden_states_in(args, kwargs)[:, -1:])

    with temporary_hooks([(head, cut)]):
        yield
