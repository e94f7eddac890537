"""What hiding the sound costs: from the last query, and from all text behind the sound.

Geva et al. 2023 (2304.14767) hide keys from queries in a window of k layers round each layer and look at the
answer; cross-modal-information-flow-in-MLLM does so with images. Two layers that read the same thing stand in
for each other, so that neither alone is missed. Hence the knockout *in order* as well: with C(S) the cost of
hiding the sound in the layers S, a layer's part is the mean of what it adds to C when layers are hidden one
after the other from the first on and from the last on:

    part(l) = ( C(0..l) - C(0..l-1) + C(l..n-1) - C(l+1..n-1) ) / 2

These are Shapley values over two orders, one the reverse of the other (antithetic permutations: Mitchell et
al. 2022, JMLR 23:43). They add up to C(all layers); a layer that never matters, whatever else is hidden, has
exactly 0; and two layers of which either suffices have a half each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mata_interp.interventions import AttentionEdit, Mata
from mata_interp.statistics import margin as option_margin

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["costs"]

GEVA = "Geva et al. 2023 (arXiv 2304.14767)"
ORDER = "Shapley values over two antithetic orders (Mitchell et al. 2022, JMLR 23:43) of Geva's knockouts"
MARGIN = "margin = log p(right option) - log p(best wrong one), nats"


def width(layers: int) -> int:
    """k of the sliding windows: an eighth of the layers, two at least."""
    return max(2, round(layers / 8))


def costs(case: ItemContext, queries: str) -> dict[str, np.ndarray]:
    """What hiding the sound takes from the margin, nats: "single", "windows", "order", float64 [layers].

    All knockouts of one kind of query in one sweep over the case's reading, computed once.
    """
    kept: dict[str, Any] = case.__dict__.setdefault("_knockouts", {})
    if queries not in kept:
        kept[queries] = _costs(case, queries)
    return kept[queries]


def _costs(case: ItemContext, queries: str) -> dict[str, np.ndarray]:
    layers, n = case.layers, len(case.layers)
    half = width(n)
    near = [range(max(0, i - (half - 1) // 2), min(n, i + half // 2 + 1)) for i in range(n)]
    sets = {
        "single": [(i,) for i in range(n)],
        "windows": [tuple(some) for some in near],
        "below": [tuple(range(i)) for i in range(n + 1)],  # below[i]: all layers before i
        "above": [tuple(range(i, n)) for i in range(n + 1)],
    }
    chosen = sorted({some for kind in sets.values() for some in kind})
    margins = _margins(
        case, [Mata(1.0, [layers[i] for i in some], "knockout", queries=queries) for some in chosen]
    )
    lost = dict(zip(chosen, margins[chosen.index(())] - margins, strict=True))
    below, above = (np.array([lost[some] for some in sets[kind]]) for kind in ("below", "above"))
    return {
        "single": np.array([lost[some] for some in sets["single"]]),
        "windows": np.array([lost[some] for some in sets["windows"]]),
        "order": (np.diff(below) - np.diff(above)) / 2,
    }


def _margins(case: ItemContext, edits: list[AttentionEdit]) -> np.ndarray:
    """The margin under each, float64 [K]."""
    told = case.told(edits)
    if not case.options:
        return told[:, case.decision.right].astype(float) - told[:, case.decision.wrong]
    return option_margin(told, case.item.choices.index(case.item.answer or ""))


_WHOSE = {"last": ("last query", "out at the last token"), "text": ("all text", "into text")}
_KINDS = {
    "order": ("knockout in order", "parts", f"part(l) of this file's text; {MARGIN}", ORDER),
    "single": ("knockout of one layer", "shares", f"C(l), the fall of the {MARGIN}", GEVA),
    "windows": ("knockout of k layers", "shares", f"C(the k layers round l), the fall of the {MARGIN}", GEVA),
}


def _register(queries: str, kind: str) -> None:
    whose, reads = _WHOSE[queries]
    label, cut, formula, source = _KINDS[kind]
    name = f"knockout_{queries}" + ("" if kind == "order" else f"_{kind}")

    @criterion(name, f"{label}, {whose}", "causal", reads, cut, "nats", formula, source)
    def measure(case: ItemContext) -> np.ndarray:
        return costs(case, queries)[kind]


for _queries in ("text", "last"):
    for _kind in _KINDS:
        _register(_queries, _kind)
