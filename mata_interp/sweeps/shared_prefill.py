"""A batch of prompts under all configurations at once: rows over one prefill, and the canary."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.interventions import select_queries
from mata_interp.lalm import PrefillCache, Prompt
from mata_interp.lalm.calls.locks import exclusive
from mata_interp.lalm.memory import free_bytes, in_halves, is_out_of_memory, memory_devices
from mata_interp.lalm.scoring import option_logprobs
from mata_interp.precision import full_precision

from .canary import STEPS, Rounding, relative_bound, token_counts
from .memory import configurations_at_once
from .option_slots import OptionSlots
from .paths import Parts
from .rounding_noise import FACTOR, logits_with_rounding
from .row_doses import RowDoses
from .row_patches import Measured, RowPatches
from .tree import grow, likeness
from .tree_edits import TreeEditing

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["on_prefill", "shared", "with_prefill"]

Result = TypeVar("Result")
Noise = Callable[[], np.ndarray]
HEAD_BYTES = 64 * 2**20  # bytes of logits at once, of which float32 copies are made


def with_prefill(lalm: LALM, prompt: Prompt, run: Callable[[PrefillCache], Result]) -> Result:
    """What ``run`` returns for a prefill of the prompt.

    The cheaper prefill comes first. It fails on some models (shapes do not fit, or the canary is off), and
    then ``run`` is called once more, with the other one.

    Raises:
        ModelError: rows cannot run on the model, or ``run`` raises it with both.
    """
    try:
        return run(PrefillCache(lalm.model, lalm.structure, prompt, last_token_only=True))
    except (ModelError, RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
    return run(PrefillCache(lalm.model, lalm.structure, prompt))


@full_precision()
@torch.inference_mode()
def shared(
    lalm: LALM,
    prompt: Prompt,
    configurations: Sequence[Parts],
    options: Sequence[Sequence[Sequence[int]]] | None,
    block: int | None,
    reading: PrefillCache | None = None,
    measured: Measured | None = None,
    verify: bool = True,
) -> tuple[np.ndarray, float]:
    """Every configuration on a batch.

    Args:
        lalm: the model.
        prompt: on the model's device.
        configurations: attention edits and patches in order, () for none.
        options: token ids of each option, one list per prompt; None for the next token's logits.
        block: configurations that run at once; as many as memory allows if None.
        reading: the prefill of this prompt, if there is one already.
        measured: patch -> what its ``measure`` returned for this prompt.
        verify: run a row without an edit beside the configurations and compare it with the plain forward.
            Pass False only where rows of the same tokens on this prefill were compared before.

    Returns:
        float64 [B, K, C], log p of options, or float32 [B, K, V], logits; and by how many
        steps of the number format the canary differs, see `Rounding`.

    Raises:
        ModelError: rows cannot run on the model, or an unedited row differs from the plain forward.
    """

    def run(reading: PrefillCache) -> tuple[np.ndarray, float]:
        return on_prefill(
            lalm, prompt, configurations, options, block, reading, measured=measured, verify=verify
        )

    return with_prefill(lalm, prompt, run) if reading is None else run(reading)


def on_prefill(  # noqa: PLR0913 what is run, on what, and what is written
    lalm: LALM,
    prompt: Prompt,
    configurations: Sequence[Parts],
    options: Sequence[Sequence[Sequence[int]]] | None,
    block: int | None,
    reading: PrefillCache,
    sums: np.ndarray | None = None,
    measured: Measured | None = None,
    verify: bool = True,
) -> tuple[np.ndarray, float]:
    """`shared` on a prefill that there is.

    Args:
        sums: float64 [6, B, K], written: sums of the doses (see `RowDoses`); None: they are not measured.
        measured, verify: those of `shared`.
    """
    _refuse_unreached(lalm, configurations)
    plain = _plain(lalm, prompt, reading, options)
    tokens = token_counts(options or [], plain[1].shape)
    if options is None:
        values = np.empty((prompt.size, len(configurations), reading.logits.shape[-1]), np.float32)
    else:
        values = np.empty((prompt.size, len(configurations), plain[1].shape[1]))
    worst, results = 0.0, _Results(values, sums)
    for prompt_slots, chosen in _by_what_they_rerun(prompt, configurations).items():
        answers = OptionSlots(
            prompt.inputs["input_ids"][:, -prompt_slots:], options or [[] for _ in prompt.items]
        )
        # similar configurations together, so that a block shares most of its rows
        chosen = sorted(chosen, key=lambda k: likeness(configurations[k]))
        step = block or configurations_at_once(
            free_bytes(*memory_devices(lalm.structure.decoder.parameters())),
            prompt.size,
            answers.slots.tokens.shape[1],
            reading.length - prompt_slots,
            max(lalm.structure.heads.values()),
            reading.size,
        )

        def unedited(answers: OptionSlots = answers) -> np.ndarray:
            return _rows(lalm, prompt, reading, answers, [()], [], _Results(values, None), {})[0]

        noise = functools.cache(lambda unedited=unedited: logits_with_rounding(lalm, unedited))

        def run(some: list[int], answers: OptionSlots = answers, noise: Noise = noise) -> float:
            edits = [*([()] if verify else []), *(configurations[k] for k in some)]
            canary = _rows(lalm, prompt, reading, answers, edits, some, results, measured or {})
            return _check(lalm, prompt, reading, canary, plain, tokens, noise) if verify else 0.0

        for begin in range(0, len(chosen), step):
            worst = max(worst, *in_halves(run, chosen[begin : begin + step]))
    return values, worst


class _Results(NamedTuple):
    """What blocks of configurations write.

    Attributes:
        values: at ``[:, places]``: log p of options, [B, K, C]; without options, logits, [B, K, V].
        sums: at ``[:, :, places]``: sums of the doses; None: they are not measured.
    """

    values: np.ndarray
    sums: np.ndarray | None


def _by_what_they_rerun(prompt: Prompt, configurations: Sequence[Parts]) -> dict[int, list[int]]:
    """Number of the prompt's last tokens that must run again -> the configurations that need it."""
    parts: dict[int, list[int]] = {}
    begins = {"last": prompt.width - 1}
    for k, edits in enumerate(configurations):
        names = {part.queries for part in edits if part.phase != "decode"} or {"last"}
        for name in names - set(begins):
            begins[name] = int(select_queries(name, prompt.groups).any(0).nonzero()[0])
        parts.setdefault(prompt.width - min(begins[name] for name in names), []).append(k)
    return parts


def _refuse_unreached(lalm: LALM, configurations: Sequence[Parts]) -> None:
    """Refuse patches of layers without attention, before which rows do not branch.

    Raises:
        ModelError: naming the layer.
    """
    for part in (part for parts in configurations for part in parts):
        if absent := set(part.layers) - set(lalm.attention_layers):
            raise ModelError(f"Layer {min(absent)} has no attention, and rows branch before attention.")


def _rows(
    lalm: LALM,
    prompt: Prompt,
    reading: PrefillCache,
    answers: OptionSlots,
    some: Sequence[Parts],
    places: Sequence[int],
    results: _Results,
    measured: Measured,
) -> tuple[np.ndarray, np.ndarray]:
    """Run one block.

    Args:
        some: the configurations of the block; with one more than there are places, the first has no edit.
        places: their places among all.
        results: written at these places.
        measured: patch -> what its ``measure`` returned.

    Returns:
        Of the first row, the logits [B, V] and log p of options [B, C].
    """
    levels, ends = grow(some, lalm.attention_layers)
    # on the CPU: each layer takes them to its own device
    parents = {layer: torch.tensor(level.parents) for layer, level in levels.items() if level.branches}
    nodes = ends[len(some) - len(places) :]
    values, sums = results
    doses = None if sums is None else RowDoses(levels, nodes, answers.slots)
    editing = TreeEditing(levels, some, prompt.groups, answers.slots, doses)
    patches = RowPatches(levels, prompt.groups, answers.slots, measured) if measured else None
    hidden = reading.rows(answers.slots, parents, editing, patches=patches)  # (B, N, S, d)
    last = hidden[:, :, answers.slots.prompt_slots - 1]
    if sums is not None and doses is not None:
        sums[:, :, places] = doses.sums().numpy()
    canary = reading.head(last[:, [ends[0]]])[:, 0].float().cpu().numpy()
    if answers.targets:
        logprob = _options(reading, hidden, answers)
        values[:, places] = logprob[:, nodes]
        return canary, logprob[:, ends[0]]
    # logits of all rows together would be larger than everything else
    step = _rows_at_once(len(last), values.shape[2])
    for begin in range(0, len(nodes), step):
        logits = reading.head(last[:, nodes[begin : begin + step]])
        values[:, places[begin : begin + step]] = logits.float().cpu().numpy()
    return canary, np.zeros((len(last), 0))


def _rows_at_once(batch: int, vocab: int) -> int:
    """Rows of B prompts whose logits are computed at once."""
    return max(1, HEAD_BYTES // (4 * batch * vocab))


def _options(reading: PrefillCache, hidden: Tensor, answers: OptionSlots) -> np.ndarray:
    """log p of every option in every node: float64 [B, N, C]."""
    batch, _, width, _ = hidden.shape
    slots = list(
        range(answers.slots.prompt_slots - 1, width)
    )  # earlier tokens of the prompt predict no option
    targets = torch.tensor([(b, slot - slots[0], token) for b, _, slot, token in answers.targets])
    vocab = reading.logits.shape[-1]
    step = _rows_at_once(batch * len(slots), vocab)
    logprobs = []
    for some in hidden[:, :, slots].split(step, dim=1):
        logp = reading.head(some.flatten(1, 2)).float().log_softmax(-1)
        logp = logp.reshape(batch, some.shape[1], len(slots), vocab)
        targets = targets.to(logp.device)  # which is not always that of the hidden states
        logprobs.append(logp[targets[:, 0], :, targets[:, 1], targets[:, 2]].T.cpu().double())  # (n, targets)
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
    noise: Noise,
) -> float:
    """By how many steps the canary differs.

    Args:
        noise: returns the logits of an unedited row under rounding, if they are needed; see `rounding_noise`.

    Raises:
        ModelError: more than are allowed; the text names the item and the first layer that differs.
    """
    rounding = Rounding.at(lalm.dtype, plain[0])
    logits = rounding.of_logits(canary[0], plain[0])
    off = np.maximum(logits, rounding.of_options(canary[1], plain[1], tokens))  # (B,); NaN stays NaN
    if (off <= STEPS[lalm.dtype]).all():
        return float(off.max())
    stray = reading.first_divergent_layer(relative_bound(lalm.dtype))  # of the rows that ran last
    # rows are compared with rows: a fault of theirs is in both, and must not widen what is allowed
    allowed = np.maximum(STEPS[lalm.dtype], FACTOR * rounding.of_logits(noise(), canary[0]))
    if (off <= allowed).all():
        return float(off.max())
    row = int(np.nan_to_num(off / allowed, nan=np.inf).argmax())
    where = "after the last layer" if stray is None else f"first after layer {stray[0]}"
    raise ModelError(
        f"an unedited row is {off[row]:.3g} steps of {str(lalm.dtype).removeprefix('torch.')} off the plain "
        f"forward (of {rounding.step[row]:.2g} each; {allowed[row]:.3g} are allowed), {where}, in item "
        f"{prompt.items[row].id!r}."
    )
