"""What hiding the audio costs: from the last query, and from all text after the audio.

Geva et al. 2023 (2304.14767) hide keys from queries in a window of k layers around each layer and measure the
answer; cross-modal-information-flow-in-MLLM does so with images. Two layers that read the same information
substitute for each other, so removing either alone costs nothing. Hence the knockout *in order* as well: with
C(S) the cost of hiding the audio in the layers S, a layer's part is the mean of what it adds to C when layers
are hidden one after the other from the first on and from the last on:

    part(l) = ( C(0..l) - C(0..l-1) + C(l..n-1) - C(l+1..n-1) ) / 2

These are Shapley values over two orders, one the reverse of the other (antithetic permutations: Mitchell et
al. 2022, JMLR 23:43). They add up to C(all layers); a layer that never matters, whatever else is hidden, has
exactly 0; and two layers of which either suffices have a half each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mata_interp.interventions import AttentionEdit, Knockout
from mata_interp.statistics import margin as option_margin

from .registry import Criterion, Reads, criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["costs"]

GEVA = "Geva et al. 2023 (arXiv 2304.14767)"
ORDER = "Shapley values over two antithetic orders (Mitchell et al. 2022, JMLR 23:43) of Geva's knockouts"
MARGIN = "margin = log p(right option) - log p(best wrong one), nats"


def window_width(layers: int) -> int:
    """k of the sliding windows: an eighth of the layers, two at least."""
    return max(2, round(layers / 8))


def costs(context: ItemContext, queries: str) -> dict[str, np.ndarray]:
    """What hiding the audio takes from the margin, in nats.

    All knockouts of one kind of query are one sweep over the prefill, computed once per item.

    Args:
        context: the item.
        queries: from which queries the audio is hidden: ``"last"`` or ``"text"``.

    Returns:
        ``single`` layers, ``windows`` of k layers, and layers in ``order``: float64 [layers] each.
    """
    return context.memo(("knockout costs", queries), lambda: _costs(context, queries))


def _costs(context: ItemContext, queries: str) -> dict[str, np.ndarray]:
    layers, n = context.layers, len(context.layers)
    k = window_width(n)
    singles = [(i,) for i in range(n)]
    windows = [tuple(range(max(0, i - (k - 1) // 2), min(n, i + k // 2 + 1))) for i in range(n)]
    below = [tuple(range(i)) for i in range(n + 1)]  # below[i]: all layers before i
    above = [tuple(range(i, n)) for i in range(n + 1)]
    hidden = sorted({*singles, *windows, *below, *above})
    edits: list[tuple[AttentionEdit, ...]] = []
    for places in hidden:
        knockout = Knockout([layers[i] for i in places], queries=queries)
        edits.append((knockout,) if places else ())
    margins = _margins(context, edits)
    cost = dict(zip(hidden, margins[hidden.index(())] - margins, strict=True))
    from_first = np.array([cost[places] for places in below])
    from_last = np.array([cost[places] for places in above])
    return {
        "single": np.array([cost[places] for places in singles]),
        "windows": np.array([cost[places] for places in windows]),
        "order": (np.diff(from_first) - np.diff(from_last)) / 2,
    }


def _margins(context: ItemContext, edits: list[tuple[AttentionEdit, ...]]) -> np.ndarray:
    """The margin under each edit, float64 [K]."""
    scores = context.answer_scores(edits)
    if not context.options:
        return scores[:, context.decision.right].astype(float) - scores[:, context.decision.wrong]
    return option_margin(scores, context.item.choices.index(context.item.answer or ""))


def _make(name: str, queries: str, kind: str) -> Criterion:
    """One of the six criteria: two sets of queries, three ways to choose the layers that are hidden."""
    whose, reads = _QUERIES[queries]
    label, window_rule, formula, source = _KINDS[kind]

    @criterion(
        name=name,
        label=f"{label}, {whose}",
        evidence="causal",
        reads=reads,
        window_rule=window_rule,
        unit="nats",
        formula=formula,
        source=source,
    )
    def knockout(context: ItemContext) -> np.ndarray:
        return costs(context, queries)[kind]

    return knockout


_QUERIES: dict[str, tuple[str, Reads]] = {
    "text": ("all text", "into text"),
    "last": ("last query", "out at the last token"),
}
_KINDS = {
    "order": ("knockout in order", "parts", f"part(l), see criteria/knockout.py; {MARGIN}", ORDER),
    "single": ("knockout of one layer", "shares", f"C(l), the fall of the {MARGIN}", GEVA),
    "windows": (
        "knockout of k layers",
        "shares",
        f"C(the k layers around l), the fall of the {MARGIN}",
        GEVA,
    ),
}

CRITERIA = (
    _make("knockout_text", "text", "order"),
    _make("knockout_text_single", "text", "single"),
    _make("knockout_text_windows", "text", "windows"),
    _make("knockout_last", "last", "order"),
    _make("knockout_last_single", "last", "single"),
    _make("knockout_last_windows", "last", "windows"),
)
