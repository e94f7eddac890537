"""Activation patching between clips: what another clip takes from the answer, what restored states return.

Clean: the item. Corrupted: the same prompt with another clip, cut or repeated to the same length. Restored:
the corrupted run with states of the clean one restored from a layer on, at the audio, at the text or at the
token that decides; always with the whole encoding, so that each run has audio. As a ratio of means over
items, RR(l) = (P_patched(l) - P_corrupted) / (P_clean - P_corrupted), with P the margin in logits (Zhang &
Nanda 2024, arXiv 2309.16042, on why logits). The profile of each item is in nats; the ratio is taken later.

At the audio, states from layer l on are the clean keys and values in layers l and above: text reads them
there and nowhere else. Since audio tokens cannot see the text after them, this is the same as patching the
residual stream, and costs the text alone. It is done both ways, restored in a corrupted run and corrupted in
a clean one, and a layer's part is the mean of the two steps, as with knockouts in order: the parts add up to
P_clean - P_corrupted. See `layer_parts` for what is measured of models of more than twelve layers. Unlike a
knockout, nothing is hidden: attention stays as it is, on another clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.lalm.memory import in_halves

from ..audio_swaps import swapped_margins
from ..baseline_edit import alters_text
from ..suffix_runner import Patch, SuffixRunner
from .layer_parts import THOROUGH, layer_parts, starts_at_last
from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["at_audio", "at_text", "margins"]

ROWS = 16  # variants with copied keys and values at once
LAST_ROWS = 4  # the same where the last tokens alone run: their work is small, and the copies are not
SOURCE = "activation patching (Meng et al. 2022, arXiv 2202.05262; Zhang & Nanda 2024, arXiv 2309.16042)"
AT_AUDIO = ("restored audio", "corrupted audio")
AT_TEXT = ("restored text", "restored last")


def margins(context: ItemContext) -> dict[str, np.ndarray]:
    """Margins with states exchanged from layer l on, in logits: those of `at_audio` and of `at_text`."""
    return {**at_audio(context), **at_text(context)}


def at_audio(context: ItemContext) -> dict[str, np.ndarray]:
    """Margins with audio states exchanged from layer l on, in logits.

    All runs are rows of one tree, see `mata_interp.fusion.audio_swaps`; on models on which rows cannot run,
    each has a copy of the cache.

    Returns:
        Each float64 [layers + 1]. ``restored audio``: clean audio states from layer l on, in a corrupted run
        (first entry: clean; last: corrupted). ``corrupted audio``: corrupted audio states from layer l on, in
        a clean run (first: corrupted; last: clean).

    Raises:
        ItemError: there is no other clip of the same length.
        ModelError: a layer has no keys and values of its own.
    """
    return context.memo("restoration at the audio", lambda: _at_audio(context))


def at_text(context: ItemContext) -> dict[str, np.ndarray]:
    """Margins with states of the text restored before layer l in a corrupted run, in logits.

    Returns:
        ``restored text`` and ``restored last``: clean states at the text after the audio, or at the last
        prompt token and forced tokens: float64 [layers + 1] (first: corrupted; last, after all layers:
        clean).

    Raises:
        ItemError, ModelError: as in `at_audio`.
    """
    n, clean = _require_own_keys(context), context.last_token_trace.margin
    measures = zip(AT_TEXT, (_restored_text, _restored_last), strict=True)
    return {
        kind: np.append(context.memo(kind, lambda measure=measure: measure(context, n)), clean)
        for kind, measure in measures
    }


def _at_audio(context: ItemContext) -> dict[str, np.ndarray]:
    n = _require_own_keys(context)
    restored = [range(at) for at in range(n + 1)]
    corrupted = [range(at, n) for at in range(n + 1)]
    measured = _margins_with_other_audio(context, [*restored, *corrupted])
    return {AT_AUDIO[0]: measured[: n + 1], AT_AUDIO[1]: measured[n + 1 :]}


def _audio_parts(context: ItemContext, from_last: bool) -> np.ndarray:
    """What each layer adds to the effect of reading the other clip, [n]; deep models in one order."""
    n = _require_own_keys(context)

    def measure() -> np.ndarray:
        return layer_parts(lambda sets: _margins_with_other_audio(context, sets), n, from_last)

    return context.memo(("parts with the other clip", n <= THOROUGH or from_last), measure)


def _margins_with_other_audio(context: ItemContext, sets: Sequence[Sequence[int]]) -> np.ndarray:
    """The margin where text reads the other clip in each set of layers, in logits."""
    try:
        return swapped_margins(context, sets)
    except ModelError:  # rows cannot run on this model
        n = context.lalm.num_layers
        return _with_copies(context, [_as_mask(some, n) for some in sets], None)


def _restored_text(context: ItemContext, n: int) -> np.ndarray:
    """The margin with all text after the audio restored before each layer, [n].

    Before layer l every state of the text is then the clean run's, and from l on text reads the other clip:
    this is the clean run that reads the other clip from l on, which costs the layers from l on alone.
    """
    if _ends_in_text(context):
        return _margins_with_other_audio(context, [range(at, n) for at in range(n)])
    return _with_copies(
        context, [torch.ones(n, dtype=torch.bool)] * n, [("restored text", at) for at in range(n)]
    )


def _ends_in_text(context: ItemContext) -> bool:
    """Whether every token from the first text token after the audio on is text."""
    return bool((context.text_queries | context.answer_queries).all())


def _restored_last(context: ItemContext, n: int) -> np.ndarray:
    """The margin with the last prompt token and the forced tokens restored before each layer, [n].

    The text before them is that of the corrupted run in every layer, whose keys and values its prefill holds,
    so that these tokens alone are run again.
    """
    if alters_text(context.inputs):  # the prefill is without the baseline
        return _with_copies(
            context, [torch.ones(n, dtype=torch.bool)] * n, [("restored last", at) for at in range(n)]
        )
    inputs = context.counterfactual.inputs
    runner = SuffixRunner(inputs, inputs.prefill.length - 1)
    count, clean = runner.tokens.shape[1], context.last_token_trace.states

    def measure(layers: range) -> list[float]:
        past = runner.past_key_values()
        past.batch_repeat_interleave(len(layers))

        def patch(layer: int, states: Tensor) -> Tensor:
            if layer in layers:
                states = states.clone()
                states[layers.index(layer)] = clean[layer][-count:].to(states)
            return states

        return runner.margins(len(layers), past, patch).tolist()

    measured: list[float] = []
    for begin in range(0, n, LAST_ROWS):
        measured += chain.from_iterable(in_halves(measure, range(n)[begin : begin + LAST_ROWS]))
    return np.array(measured)


def _require_own_keys(context: ItemContext) -> int:
    """The number of layers, each of which has keys and values of its own."""
    n, clean = context.lalm.num_layers, context.suffix_runner.past_key_values()
    if len(context.layers) < n or len(clean.layers) != n:
        raise ModelError("not every layer has attention with keys and values of its own.")
    return n


def _with_copies(
    context: ItemContext, reads_corrupted: list[Tensor], text_plans: list[tuple[str, int]] | None
) -> np.ndarray:
    """Margins of runs that have a copy of the cache each.

    Args:
        reads_corrupted: in which layers each run reads the other clip, bool [n] each.
        text_plans: which states of the text each run restores; None: none.
    """
    runner = context.suffix_runner
    corrupted = context.counterfactual.suffix_runner.past_key_values()
    stacked = torch.stack(reads_corrupted)  # (runs, n)

    def measure(rows: range) -> list[float]:
        past = _mix_caches(runner.past_key_values(), corrupted, stacked[rows.start : rows.stop])
        patch = None if text_plans is None else _patch_text(context, text_plans[rows.start : rows.stop])
        return runner.margins(len(rows), past, patch).tolist()

    every = range(len(stacked))
    measured: list[float] = []
    for begin in every[::ROWS]:
        measured += chain.from_iterable(in_halves(measure, every[begin : begin + ROWS]))
    return np.array(measured)


def _as_mask(layers: Sequence[int], n: int) -> Tensor:
    """A set of layers as bool [n]."""
    mask = torch.zeros(n, dtype=torch.bool)
    mask[list(layers)] = True
    return mask


def _mix_caches(clean: Any, corrupted: Any, reads_corrupted: Tensor) -> Any:
    """A cache of R rows, with corrupted keys and values where ``reads_corrupted``, bool [R, n], says so."""
    for number, (layer, other) in enumerate(zip(clean.layers, corrupted.layers, strict=True)):
        choice = reads_corrupted[:, number, None, None, None].to(layer.keys.device)
        layer.keys = torch.where(choice, other.keys, layer.keys)
        layer.values = torch.where(choice, other.values, layer.values)
    return clean


def _patch_text(context: ItemContext, plans: list[tuple[str, int]]) -> Patch:
    """A patch that restores clean states at the text or at its end, each row before its own layer."""
    tokens = {
        "restored text": (context.text_queries | context.answer_queries).cpu().nonzero()[:, 0],
        "restored last": context.answer_queries.cpu().nonzero()[:, 0],
    }
    clean = context.suffix_trace.states

    def patch(layer: int, states: Tensor) -> Tensor:
        for row, (kind, at) in enumerate(plans):
            if kind in tokens and at == layer:
                states = states.clone()
                chosen = tokens[kind]  # on the CPU: layers may be spread over devices
                states[row, chosen] = clean[layer][chosen].to(states)
        return states

    return patch


@criterion(
    name="restoration_audio",
    label="restoration at the audio",
    evidence="causal",
    reads="into text",
    window_rule="parts",
    unit="nats",
    formula="mean of margin(audio restored from l on) - margin(from l + 1 on) and margin(audio corrupted "
    "from l + 1 on) - margin(from l on)",
    source=SOURCE,
)
def restoration_audio(context: ItemContext) -> np.ndarray:
    # the other order than the knockout's, so that their mean has both
    return _audio_parts(context, not starts_at_last(context.item.id))


@criterion(
    name="restoration_text",
    label="restoration at the text",
    evidence="causal",
    reads="into text",
    window_rule="parts",
    unit="nats",
    formula="margin(text restored after l) - margin(restored before l)",
    source=SOURCE,
)
def restoration_text(context: ItemContext) -> np.ndarray:
    if len(context.layers) > THOROUGH and _ends_in_text(context):
        return _audio_parts(context, True)  # the same runs as those that read the other clip from l on
    return np.diff(at_text(context)["restored text"])


@criterion(
    name="restoration_last",
    label="restoration at the last token",
    evidence="causal",
    reads="out at the last token",
    window_rule="parts",
    unit="nats",
    formula="margin(last token restored after l) - margin(restored before l)",
    source=SOURCE,
)
def restoration_last(context: ItemContext) -> np.ndarray:
    n = _require_own_keys(context)
    measured = context.memo("restored last", lambda: _restored_last(context, n))
    return np.diff(measured, append=context.last_token_trace.margin)


CRITERIA = (restoration_audio, restoration_text, restoration_last)
