"""A batch of prompts under all configurations at once: rows over one prefill, and the canary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.interventions import AttentionEdit, select_queries
from mata_interp.lalm import PrefillCache, Prompt
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.memory import free_bytes, in_halves, is_out_of_memory, memory_devices
from mata_interp.lalm.scoring import option_logprobs
from mata_interp.precision import full_precision

from .canary import STEPS, Rounding, relative_bound, token_counts
from .memory import configurations_at_once
from .option_slots import OptionSlots
from .rounding_noise import FACTOR, logits_with_rounding
from .tree import grow
from .tree_edits import TreeEditing

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["Edits", "shared"]

Edits = tuple[AttentionEdit, ...]
HEAD_BYTES = 256 * 2**20  # bytes of logits at once


@full_precision()
@torch.inference_mode()
def shared(
    lalm: LALM,
    prompt: Prompt,
    configurations: Sequence[Edits],
    options: Sequence[Sequence[Sequence[int]]] | None,
    block: int | None,
    reading: PrefillCache | None = None,
) -> tuple[np.ndarray, float]:
    """Every configuration on a batch.

    Args:
        lalm: the model.
        prompt: on the model's device.
        configurations: attention edits in order, () for none.
        options: token ids of each option, one list per prompt; None for the next token's logits.
        block: configurations that run at once; as many as memory allows if None.
        reading: the prefill of this prompt, if there is one already.

    Returns:
        float64 [B, K, C], log p of options, or float32 [B, K, V], logits; and by how many
        steps of the number format the canary differs, see `Rounding`.

    Raises:
        ModelError: rows cannot run on the model, or an unedited row differs from the plain forward.
    """
    if reading is None:
        # the cheaper prefill fails on some models: shapes do not fit, or the canary is off
        try:
            cheaper = PrefillCache(lalm.model, lalm.structure, prompt, last_token_only=True)
            return _shared(lalm, prompt, configurations, options, block, cheaper)
        except (ModelError, RuntimeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
        cheaper = None
        reading = PrefillCache(lalm.model, lalm.structure, prompt)
    return _shared(lalm, prompt, configurations, options, block, reading)


def _shared(
    lalm: LALM,
    prompt: Prompt,
    configurations: Sequence[Edits],
    options: Sequence[Sequence[Sequence[int]]] | None,
    block: int | None,
    reading: PrefillCache,
) -> tuple[np.ndarray, float]:
    plain = _plain(lalm, prompt, reading, options)
    tokens = token_counts(options or [], plain[1].shape)
    if options is None:
        found = np.empty((prompt.size, len(configurations), reading.logits.shape[-1]), np.float32)
    else:
        found = np.empty((prompt.size, len(configurations), plain[1].shape[1]))
    worst = 0.0
    for given, chosen in _by_what_they_rerun(prompt, configurations).items():
        answers = OptionSlots(prompt.inputs["input_ids"][:, -given:], options or [[] for _ in prompt.items])
        # similar configurations together, so that a block shares most of its rows
        chosen = sorted(chosen, key=lambda k: _likeness(configurations[k]))
        step = block or configurations_at_once(
            free_bytes(*memory_devices(lalm.structure.decoder.parameters())),
            prompt.size,
            answers.slots.tokens.shape[1],
            reading.length - given,
            max(lalm.structure.heads.values()),
            reading.size,
        )

        def run(some: list[int], answers: OptionSlots = answers) -> float:
            edits = [configurations[k] for k in some]
            canary = _rows(lalm, prompt, reading, answers, edits, found, some)
            return _check(lalm, prompt, reading, canary, plain, tokens)

        for begin in range(0, len(chosen), step):
            worst = max(worst, *in_halves(run, chosen[begin : begin + step]))
    return found, worst


def _by_what_they_rerun(prompt: Prompt, configurations: Sequence[Edits]) -> dict[int, list[int]]:
    """Number of the prompt's last tokens that must run again -> the configurations that need it."""
    parts: dict[int, list[int]] = {}
    begins = {"last": prompt.width - 1}
    for k, edits in enumerate(configurations):
        names = {part.queries for part in edits if part.phase != "decode"} or {"last"}
        for name in names - set(begins):
            begins[name] = int(select_queries(name, prompt.groups).any(0).nonzero()[0])
        parts.setdefault(prompt.width - min(begins[name] for name in names), []).append(k)
    return parts


def _likeness(parts: Edits) -> tuple:
    return tuple(
        (part.layers, part.rule, part.keys, str(part.heads), part.queries, part.phase, part.alpha)
        for part in parts
    )


def _rows(
    lalm: LALM,
    prompt: Prompt,
    reading: PrefillCache,
    answers: OptionSlots,
    some: Sequence[Edits],
    found: np.ndarray,
    places: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Run one block.

    Args:
        some: the configurations of the block.
        found: written at ``[:, places]``: log p of options, [B, K, C]; without options, logits, [B, K, V].

    Returns:
        Of the row without an edit, the logits [B, V] and log p of options [B, C].
    """
    levels, ends = grow([(), *some], lalm.attention_layers)
    # on the CPU: each layer takes them to its own device
    parents = {layer: torch.tensor(level.parents) for layer, level in levels.items() if level.branches}
    editing = TreeEditing(levels, some, prompt.groups, answers.slots)
    hidden = reading.rows(answers.slots, parents, editing)  # (B, N, S, d)
    last = hidden[:, :, answers.slots.given - 1]
    unedited, *nodes = ends
    canary = reading.head(last[:, [unedited]])[:, 0].float().cpu().numpy()
    if answers.asked:
        logprob = _options(reading, hidden, answers)
        found[:, places] = logprob[:, nodes]
        return canary, logprob[:, unedited]
    # logits of all rows together would be larger than everything else
    step = _rows_at_once(len(last), found.shape[2])
    for begin in range(0, len(nodes), step):
        logits = reading.head(last[:, nodes[begin : begin + step]])
        found[:, places[begin : begin + step]] = logits.float().cpu().numpy()
    return canary, np.zeros((len(last), 0))


def _rows_at_once(batch: int, vocab: int) -> int:
    """Rows of B prompts whose logits are computed at once."""
    return max(1, HEAD_BYTES // (4 * batch * vocab))


def _options(reading: PrefillCache, hidden: Tensor, answers: OptionSlots) -> np.ndarray:
    """log p of every option in every node: float64 [B, N, C]."""
    batch, _, width, _ = hidden.shape
    slots = list(range(answers.slots.given - 1, width))  # earlier tokens of the prompt predict no option
    wanted = torch.tensor([(b, slot - slots[0], token) for b, _, slot, token in answers.asked])
    vocab = reading.logits.shape[-1]
    step = _rows_at_once(batch * len(slots), vocab)
    logprobs = []
    for some in hidden[:, :, slots].split(step, dim=1):
        logp = reading.head(some.flatten(1, 2)).float().log_softmax(-1)
        logp = logp.reshape(batch, some.shape[1], len(slots), vocab)
        wanted = wanted.to(logp.device)  # which is not always that of the hidden states
        logprobs.append(logp[wanted[:, 0], :, wanted[:, 1], wanted[:, 2]].T.cpu().double())  # (n, asked)
    return answers.logprob(torch.cat(logprobs).numpy())


def _plain(
    lalm: LALM, prompt: Prompt, reading: PrefillCache, options: Sequence[Sequence[Sequence[int]]] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The canary's reference: the plain forward's logits [B, V], and log p [B, C] on its cache."""
    if options is None:
        logprob = np.zeros((prompt.size, 0))
    else:
        with exclusive(lalm.structure.decoder):
            logprob = option_logprobs(lalm.model, prompt, options, reading.before(1))
    return reading.logits.float().cpu().numpy(), logprob


def _check(
    lalm: LALM,
    prompt: Prompt,
    reading: PrefillCache,
    canary: tuple[np.ndarray, np.ndarray],
    plain: tuple[np.ndarray, np.ndarray],
    tokens: np.ndarray,
) -> float:
    """By how many steps the canary differs.

    Raises:
        ModelError: more than are allowed; the text names the item and the first layer that differs.
    """
    rounding = Rounding.at(lalm.dtype, plain[0])
    logits = rounding.of_logits(canary[0], plain[0])
    off = np.maximum(logits, rounding.of_options(canary[1], plain[1], tokens))  # (B,); NaN stays NaN
    if (off <= STEPS[lalm.dtype]).all():
        return float(off.max())
    noise = rounding.of_logits(logits_with_rounding(lalm, prompt), plain[0])
    allowed = np.maximum(STEPS[lalm.dtype], FACTOR * noise)
    if (off <= allowed).all():
        return float(off.max())
    stray = reading.first_divergent_layer(relative_bound(lalm.dtype))
    row = int(np.nan_to_num(off / allowed, nan=np.inf).argmax())
    where = "after the last layer" if stray is None else f"first after layer {stray[0]}"
    raise ModelError(
        f"an unedited row is {off[row]:.3g} steps of {str(lalm.dtype).removeprefix('torch.')} off the plain "
        f"forward (of {rounding.step[row]:.2g} each; {allowed[row]:.3g} are allowed), {where}, in item "
        f"{prompt.items[row].id!r}."
    )
