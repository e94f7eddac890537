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
P_clean - P_corrupted. Unlike a knockout, nothing is hidden: attention stays as it is, on another clip.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.lalm.memory import in_halves

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext
    from ..suffix_runner import Patch

__all__ = ["margins"]

ROWS = 16  # variants at once: each has keys and values of its own
SOURCE = "activation patching (Meng et al. 2022, arXiv 2202.05262; Zhang & Nanda 2024, arXiv 2309.16042)"
AT_AUDIO = ("restored audio", "corrupted audio")
AT_TEXT = ("restored text", "restored last")


def margins(context: ItemContext) -> dict[str, np.ndarray]:
    """Margins with states exchanged from layer l on, in logits.

    Returns:
        Each float64 [layers + 1]. ``restored audio``: clean audio states from layer l on, in a corrupted run
        (first entry: clean; last: corrupted). ``corrupted audio``: corrupted audio states from layer l on, in
        a clean run (first: corrupted; last: clean). ``restored text`` and ``restored last``: clean states
        before layer l at the text after the audio, or at the last prompt token and forced tokens, in a
        corrupted run (first: corrupted; last, after all layers: clean).

    Raises:
        ItemError: there is no other clip of the same length.
        ModelError: a layer has no keys and values of its own.
    """
    return context.memo("restoration margins", lambda: _margins(context))


def _margins(context: ItemContext) -> dict[str, np.ndarray]:
    n = context.lalm.num_layers
    runner = context.suffix_runner
    clean, corrupted = runner.past_key_values(), context.counterfactual.suffix_runner.past_key_values()
    if len(context.layers) < n or len(clean.layers) != n:
        raise ModelError("not every layer has attention with keys and values of its own.")
    plans = [(kind, at) for kind in AT_AUDIO for at in range(n + 1)]
    plans += [(kind, at) for kind in AT_TEXT for at in range(n)]
    reads_corrupted = torch.stack([_reads_corrupted(kind, at, n) for kind, at in plans])  # (plans, n)

    def measure(rows: range) -> list[float]:
        some = [plans[row] for row in rows]
        past = _mix_caches(runner.past_key_values(), corrupted, reads_corrupted[rows.start : rows.stop])
        return runner.margins(len(some), past, _patch_text(context, some)).tolist()

    every = range(len(plans))
    measured: list[float] = []
    for begin in every[::ROWS]:
        measured += chain.from_iterable(in_halves(measure, every[begin : begin + ROWS]))
    found = {}
    for kind in (*AT_AUDIO, *AT_TEXT):
        found[kind] = np.array([measured[i] for i, (name, _) in enumerate(plans) if name == kind])
    for kind in AT_TEXT:
        found[kind] = np.append(found[kind], found["restored audio"][0])
    return found


def _reads_corrupted(kind: str, at: int, n: int) -> Tensor:
    """In which layers of a plan text reads the other clip: bool [n]."""
    layer = torch.arange(n)
    if kind == "restored audio":
        return layer < at
    if kind == "corrupted audio":
        return layer >= at
    return layer >= 0


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
    runs_suffix=True,
)
def restoration_audio(context: ItemContext) -> np.ndarray:
    found = margins(context)
    return (np.diff(found["corrupted audio"]) - np.diff(found["restored audio"])) / 2


@criterion(
    name="restoration_text",
    label="restoration at the text",
    evidence="causal",
    reads="into text",
    window_rule="parts",
    unit="nats",
    formula="margin(text restored after l) - margin(restored before l)",
    source=SOURCE,
    runs_suffix=True,
)
def restoration_text(context: ItemContext) -> np.ndarray:
    return np.diff(margins(context)["restored text"])


@criterion(
    name="restoration_last",
    label="restoration at the last token",
    evidence="causal",
    reads="out at the last token",
    window_rule="parts",
    unit="nats",
    formula="margin(last token restored after l) - margin(restored before l)",
    source=SOURCE,
    runs_suffix=True,
)
def restoration_last(context: ItemContext) -> np.ndarray:
    return np.diff(margins(context)["restored last"])


CRITERIA = (restoration_audio, restoration_text, restoration_last)
