"""Log-probability of each option as the answer: one prefill, then the options on its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .discovery.hooks import temporary_hooks
from .discovery.output_head import last_position_only
from .discovery.structure import decoder_of
from .prompting.prompts import Prompt
from .rereading import keeps_states, reread, without_last_token
from .rows.caches import (
    branch_cache,
    crop_last_token,
    has_state_layers,
    position_ids_after,
    preallocate,
    set_prompt_positions,
    with_next_position,
)

__all__ = ["OptionScores", "decoder_positions", "option_logprobs", "read", "read_last", "score_options"]

Tokens = Sequence[int]


@dataclass(frozen=True, eq=False, repr=False)
class OptionScores:
    """Log-probabilities of C options (the most any prompt has) for B prompts.

    Attributes:
        logprob: log p(option | prompt), natural, summed over its tokens: float64 [B, C], NaN where there is
            no option.
        tokens: number of tokens of each option, int [B, C], 0 where there is no option.
        dose: the intervention's dose, a mean over edited layers, heads and queries (those of the last prompt
            token and of all options' tokens): name -> float64 [B]. Empty without an intervention.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> scores = lalm.score(items[0])
        >>> scores.logprob.shape == (1, len(items[0].choices))
        True
    """

    logprob: np.ndarray
    tokens: np.ndarray
    dose: dict[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        prompts, options = self.logprob.shape
        return f"<OptionScores of {prompts} prompts, up to {options} options>"


def read(model: Any, prompt: Prompt, room: int = 0, editing: Any = None) -> Any:
    """The cache of all prompt tokens but the last, which most interventions leave as they are.

    Edits of the last query reach no query before it, so one prefill serves any number of them. The prompt is
    read in whole, and its cache steps back by one token. Where it cannot (a full sliding window, a recurrent
    state), all tokens but the last are read by themselves.

    Args:
        room: number of tokens to allocate space for, that last one and an option's.
        editing: bound interventions that are in force; the last token does not enter their dose here.

    Returns:
        None where the last token is audio, or where the model needs more than ids and a mask for each token
        and cannot step back.
    """
    if prompt.groups["audio"][:, -1].any():
        return None

    def cache_of(inputs: dict[str, Any], counted: Tensor) -> Any:
        if editing is not None:
            editing.counted = counted
        with last_position_only(model), decoder_positions(model) as positions:
            cache = model(**inputs, use_cache=True).past_key_values
        if editing is not None:
            editing.counted = None
        return set_prompt_positions(cache, positions[0])

    back, counted = None, torch.ones_like(prompt.groups["audio"])
    counted[:, -1] = False
    if not keeps_states(model):
        back = crop_last_token(cache_of(prompt.inputs, counted))
        counted = torch.zeros_like(counted)  # these tokens are in the dose
    if back is None and (shorter := without_last_token(prompt)) is not None:
        back = with_next_position(cache_of(shorter, counted[:, :-1]))
    return None if back is None else preallocate(back, room)


def read_last(model: Any, prompt: Prompt, cache: Any = None) -> tuple[Any, Tensor]:
    """The cache of the whole prompt, and the logits [B, V] at its last token.

    Args:
        cache: from `read` for these prompts, from which the last token goes on; None: they are read in whole.
    """
    last: dict[str, Any] = dict(prompt.inputs)
    if cache is not None:
        tokens = prompt.inputs["input_ids"]
        mask = prompt.inputs.get("attention_mask", torch.ones_like(tokens))
        last = {"input_ids": tokens[:, -1:], "attention_mask": mask, "past_key_values": branch_cache(cache)}
        last |= position_ids_after(cache, 0, 1)
    with last_position_only(model), decoder_positions(model) as positions:
        out = model(**last, use_cache=True)
    return set_prompt_positions(out.past_key_values, positions[0]), out.logits[:, -1]


def option_logprobs(
    model: Any,
    prompt: Prompt,
    options: Sequence[Sequence[Tokens]],
    cache: Any = None,
    editing: Any = None,
) -> np.ndarray:
    """log p of every option, teacher-forced: float64 [B, C].

    The last token of the prompts runs on the cache; then the first option of every prompt runs on the keys
    and values cached so far, then the second: memory stays that of the batch, however many options there are.
    The options' last tokens are only predicted, so options of one token need no second run at all.

    Args:
        model: a transformers model; attention edits are made around this function, by the instrument.
        prompt: B left-padded prompts.
        options: token ids of each option, one list per prompt; at least one token each.
        cache: from `read` for these prompts; None: the whole prompts are read here.
        editing: bound interventions; its ``counted`` is set to the queries that are no padding.
    """
    tokens = prompt.inputs["input_ids"]
    mask = prompt.inputs.get("attention_mask", torch.ones_like(tokens))
    logprob = np.full((prompt.size, max(map(len, options))), np.nan)
    grown, logits = read_last(model, prompt, cache)
    first = logits.float().log_softmax(-1).cpu().double().numpy()  # (B, V)
    for row, choices in enumerate(options):
        logprob[row, : len(choices)] = [first[row, option[0]] for option in choices]

    # longest options first, so that those that run together are of similar length
    order = [sorted(range(len(choices)), key=lambda c: -len(choices[c])) for choices in options]
    for slot in range(logprob.shape[1]):
        chosen = [row[slot] if slot < len(row) else None for row in order]
        texts = [() if c is None else options[row][c] for row, c in enumerate(chosen)]
        lengths = torch.tensor([max(len(text) - 1, 0) for text in texts])
        width = int(lengths.max())
        if width == 0:
            break
        real = torch.arange(width) < lengths[:, None]  # (B, W)
        inputs, targets = torch.zeros(2, prompt.size, width, dtype=torch.long)
        for row, text in enumerate(texts):
            inputs[row, : lengths[row]] = torch.tensor(text[:-1], dtype=torch.long)
            targets[row, : lengths[row]] = torch.tensor(text[1:], dtype=torch.long)
        # some recurrent layers start over when they get several tokens at once
        one_by_one = has_state_layers(grown) or (editing is not None and editing.token_by_token)
        step = 1 if one_by_one else width
        option_cache, outputs = branch_cache(grown), []
        for begin in range(0, width, step):
            end = begin + step
            if editing is not None:
                editing.counted = real[:, begin:end]
            out = model(
                input_ids=inputs[:, begin:end].to(tokens.device),
                attention_mask=torch.cat([mask, mask.new_ones(prompt.size, end)], 1),
                past_key_values=option_cache,
                use_cache=True,
                **position_ids_after(grown, 1 + begin, step),
            )
            option_cache = out.past_key_values
            outputs.append(out.logits)
        logits = torch.cat(outputs, 1)
        picked = logits.float().log_softmax(-1).gather(2, targets.to(tokens.device)[:, :, None])[:, :, 0]
        sums = picked.cpu().double().masked_fill(~real, 0.0).sum(1).numpy()
        for row, c in enumerate(chosen):
            if c is not None:
                logprob[row, c] += sums[row]
    return logprob


def score_options(
    model: Any,
    prompt: Prompt,
    options: Sequence[Sequence[Tokens]],
    editings: Iterable[Any],
    run: Callable[[Callable[[], np.ndarray], Any], np.ndarray],
    cache: Any = None,
    dtype: torch.dtype | None = None,
) -> list[OptionScores]:
    """The scores under each of several bound interventions, with one prefill for all that can share it.

    Args:
        editings: `BoundInterventions`, or None for the model as it is.
        run: ``run(forward, editing)`` runs a forward with interventions in force.
        cache: of all prompt tokens but the last, where these prompts were read already; None: they are read
            here.
        dtype: in which the model computes; None: every intervention that edits earlier tokens than the last
            one reads the whole prompt.
    """
    lengths = np.zeros((prompt.size, max(map(len, options))), dtype=int)
    for row, tokens in enumerate(options):
        lengths[row, : len(tokens)] = [len(option) for option in tokens]
    room = int(lengths.max())
    cache = read(model, prompt, room) if cache is None else preallocate(cache, room)
    scores = []
    for editing in editings:
        if editing is None or editing.shares or cache is None:
            forward = partial(option_logprobs, model, prompt, options, cache, editing)
        else:
            forward = partial(_read_and_score, model, prompt, options, editing, room, cache, dtype)
        scores.append(OptionScores(run(forward, editing), lengths, editing.dose() if editing else {}))
    return scores


def _read_and_score(
    model: Any,
    prompt: Prompt,
    options: Sequence[Sequence[Tokens]],
    editing: Any,
    room: int,
    cache: Any,
    dtype: torch.dtype | None,
) -> np.ndarray:
    """`option_logprobs` under an intervention that edits earlier tokens than the last one.

    The text after the audio is read again on the cache of what comes before it. Where that is not possible
    (see `reread`), the prompt is read as it is without an intervention: in whole, then its last token once
    more on the cache. The same kernels then run on the same shapes, so that strength 0 is no intervention,
    bit for bit. The last token enters the dose once.
    """
    text = None if dtype is None else reread(model, prompt, cache, editing.first, room, dtype)
    if text is None:
        text = read(model, prompt, room, editing)
    return option_logprobs(model, prompt, options, text, editing)


@contextmanager
def decoder_positions(model: Any) -> Iterator[list[Any]]:
    """The position ids that the decoder is called with, of each call; None where it counts itself."""
    positions: list[Any] = []
    record = lambda args, kwargs: positions.append(kwargs.get("position_ids"))  # noqa: E731
    with temporary_hooks([(decoder_of(model), record)]):
        yield positions
