"""What another sound takes from the answer, and what putting the right states back returns.

Clean: the item. Corrupted: the same prompt with another clip, cut or repeated to the same length. Restored:
the corrupted run with states of the clean one put back from a layer on, at the sound, at the text or at the
token that decides; always with the whole encoding, so that there is a sound in either. As a ratio of means
over items, RR(l) = (P_patched(l) - P_corrupted) / (P_clean - P_corrupted), with P the margin in logits (Zhang
& Nanda 2024, arXiv 2309.16042, on why logits). What is kept of each item is nats; the ratio is taken later.

At the sound, states from layer l on are the clean keys and values in layers l and above: text reads them
there and nowhere else. Since sounds cannot see the text behind them, this is the same as patching the
residual stream, and costs the text alone. It is done both ways, restored in a corrupted run and corrupted in
a clean one, and a layer's part is the mean of the two steps, as with knockouts in order: the parts add up to
P_clean - P_corrupted. Unlike a knockout, nothing is hidden: attention falls where it fell, on another sound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import ModelError

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["margins"]

ROWS = 16  # variants at once: each has keys and values of its own
SOURCE = "activation patching (Meng et al. 2022, arXiv 2202.05262; Zhang & Nanda 2024, arXiv 2309.16042)"
WHERE = ("sound", "kept", "text", "last")


def margins(case: ItemContext) -> dict[str, np.ndarray]:
    """Margins with states exchanged from layer l on, logits: each float64 [layers + 1].

    ``sound``: clean at the sound from layer l on, in a corrupted run (0: clean, the end: corrupted).
    ``kept``: corrupted at the sound from layer l on, in a clean run (0: corrupted, the end: clean).
    ``text``, ``last``: clean at the text behind the sound, or at its last token (and forced ones), before
    layer l, in a corrupted run (0: corrupted). The end of these two: behind the last layer, clean.
    """
    if "_restored" not in case.__dict__:
        case.__dict__["_restored"] = _margins(case)
    return case.__dict__["_restored"]


def _margins(case: ItemContext) -> dict[str, np.ndarray]:
    n = case.lalm.num_layers
    clean, other = case.ending.past(), case.corrupted.ending.past()
    if len(case.layers) < n or len(clean.layers) != n:
        raise ModelError("not every layer has attention with keys and values of its own.")
    layer = torch.arange(n)
    plans = [(kind, at) for kind in WHERE for at in range(n + 1) if not (kind in WHERE[2:] and at == n)]
    swapped = torch.stack([  # of each plan and layer, whether text reads the other sound there
        layer < at if kind == "sound" else layer >= at if kind == "kept" else layer >= 0 for kind, at in plans
    ])  # fmt: skip
    told: list[float] = []
    for begin in range(0, len(plans), ROWS):
        some = plans[begin : begin + ROWS]
        past = _mixed(case.ending.past(), other, swapped[begin : begin + ROWS])
        told += case.ending.margins(len(some), past, _patch(case, some)).tolist()
    found = {kind: np.array([told[i] for i, (k, _) in enumerate(plans) if k == kind]) for kind in WHERE}
    for kind in WHERE[2:]:
        found[kind] = np.append(found[kind], found["sound"][0])
    return found


def _mixed(clean: Any, other: Any, swapped: Tensor) -> Any:
    """A cache of R rows; in which layers of a row the other's keys and values stand: bool [R, n]."""
    for number, (layer, its) in enumerate(zip(clean.layers, other.layers, strict=True)):
        choice = swapped[:, number, None, None, None].to(layer.keys.device)
        layer.keys = torch.where(choice, its.keys, layer.keys)
        layer.values = torch.where(choice, its.values, layer.values)
    return clean


def _patch(case: ItemContext, plans: list[tuple[str, int]]) -> Any:
    """Clean states at the text or its end, in the rows whose turn it is."""
    where = {"text": case.text | case.speaking, "last": case.speaking}
    clean = case.watched.states

    def patch(layer: int, states: Tensor) -> Tensor:
        for row, (kind, at) in enumerate(plans):
            if kind in where and at == layer:
                states = states.clone()
                states[row, where[kind]] = clean[layer][where[kind]].to(states)
        return states

    return patch


@criterion(
    "restoration_audio", "restoration at the sound", "causal", "into text", "parts", "nats",
    "mean of margin(sound restored from l on) - margin(from l + 1 on) and margin(sound corrupted from l + 1 "
    "on) - margin(from l on)", SOURCE,
)  # fmt: skip
def audio(case: ItemContext) -> np.ndarray:
    found = margins(case)
    return (np.diff(found["kept"]) - np.diff(found["sound"])) / 2


@criterion(
    "restoration_text", "restoration at the text", "causal", "into text", "parts", "nats",
    "margin(text restored behind l) - margin(restored before l)", SOURCE,
)  # fmt: skip
def text(case: ItemContext) -> np.ndarray:
    return np.diff(margins(case)["text"])


@criterion(
    "restoration_last", "restoration at the last token", "causal", "out at the last token", "parts", "nats",
    "margin(last token restored behind l) - margin(restored before l)", SOURCE,
)  # fmt: skip
def last(case: ItemContext) -> np.ndarray:
    return np.diff(margins(case)["last"])
