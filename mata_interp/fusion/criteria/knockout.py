"""What hiding the audio costs: from the last query, and from all text after the audio.

Geva et al. 2023 (2304.14767) hide keys from queries in a window of k layers around each layer and measure the
answer; cross-modal-information-flow-in-MLLM does so with images. Two layers that read the same information
substitute for each other, so removing either alone costs nothing. Hence the knockout *in order* as well: with
C(S) the cost of hiding the audio in the layers S, a layer's part is the mean of what it adds to C when layers
are hidden one after the other from the first on and from the last on:

    part(l) = ( C(0..l) - C(0..l-1) + C(l..n-1) - C(l+1..n-1) ) / 2

See `layer_parts` for the order, and for what is measured of models of more than twelve layers, also of single
layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mata_interp.interventions import AttentionEdit, Knockout
from mata_interp.statistics import margin as option_margin

from .layer_parts import THOROUGH, Margins, layer_parts, layers_alone, starts_at_last
from .registry import Criterion, Reads, criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["cost", "costs"]

GEVA = "Geva et al. 2023 (arXiv 2304.14767)"
ORDER = "Shapley values over two antithetic orders (Mitchell et al. 2022, JMLR 23:43) of Geva's knockouts"
MARGIN = "margin = log p(right option) - log p(best wrong one), nats"


def window_width(layers: int) -> int:
    """k of the sliding windows: an eighth of the layers, two at least."""
    return max(2, round(layers / 8))


def costs(context: ItemContext, queries: str) -> dict[str, np.ndarray]:
    """What hiding the audio takes from the margin, in nats.

    Args:
        context: the item.
        queries: from which queries the audio is hidden: ``"last"`` or ``"text"``.

    Returns:
        ``single`` layers, ``windows`` of k layers, and layers in ``order``: float64 [layers] each.
    """
    return {kind: cost(context, queries, kind) for kind in _KINDS}


def cost(context: ItemContext, queries: str, kind: str) -> np.ndarray:
    """One entry of `costs`: float64 [layers]. All its knockouts are one sweep over the prefill."""
    return context.memo(("knockout cost", queries, kind), lambda: _cost(context, queries, kind))


def _cost(context: ItemContext, queries: str, kind: str) -> np.ndarray:
    n = len(context.layers)
    if kind == "order":
        return layer_parts(_measured_once(context, queries), n, starts_at_last(context.item.id))
    if kind == "single":
        if n <= THOROUGH:
            return _losses(context, queries, [(i,) for i in range(n)])
        parts = cost(context, queries, "order")
        return layers_alone(_measured_once(context, queries), parts)
    k = window_width(n)
    return _losses(
        context, queries, [tuple(range(max(0, i - (k - 1) // 2), min(n, i + k // 2 + 1))) for i in range(n)]
    )


def _measured_once(context: ItemContext, queries: str) -> Margins:
    """`_margins_without` that measures no set twice: first layers are hidden in order, then alone.

    Results would depend on the order of criteria if sets were measured in another sequence.
    """
    known: dict[tuple[int, ...], float] = context.memo(("margins without", queries), dict)

    def margins(sets: Sequence[Sequence[int]]) -> np.ndarray:
        missing = [places for places in dict.fromkeys(map(tuple, sets)) if places not in known]
        if missing:  # rows are compared with the plain forward in the first call alone
            measured = _margins_without(context, queries, missing, verify=not known)
            known.update(zip(missing, measured.tolist(), strict=True))
        return np.array([known[tuple(places)] for places in sets])

    return margins


def _losses(context: ItemContext, queries: str, hidden: list[tuple[int, ...]]) -> np.ndarray:
    """The fall of the margin with the audio hidden in each set of layers, given by their places."""
    margins = _margins_without(context, queries, [(), *hidden])
    return margins[0] - margins[1:]


def _margins_without(
    context: ItemContext, queries: str, hidden: Sequence[Sequence[int]], verify: bool = True
) -> np.ndarray:
    """The margin with the audio hidden in each set of layers, given by their places."""
    layers = context.layers
    edits: list[tuple[AttentionEdit, ...]] = [
        (Knockout([layers[i] for i in places], queries=queries),) if places else () for places in hidden
    ]
    return _margins(context, edits, verify)


def _margins(context: ItemContext, edits: list[tuple[AttentionEdit, ...]], verify: bool) -> np.ndarray:
    """The margin under each edit, float64 [K]."""
    scores = context.answer_scores(edits, verify=verify)
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
        return cost(context, queries, kind)

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
