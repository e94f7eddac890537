"""What hiding the audio costs: from the last query, and from all text after the audio.

Geva et al. 2023 (2304.14767) hide keys from queries in a window of k layers around each layer and measure
the answer; cross-modal-information-flow-in-MLLM does so with images. Two layers that read the same
information substitute for each other, so removing either alone costs nothing. Hence two more kinds. With C(S)
the cost of hiding the audio in the layers S, the knockout *of all other layers* is what the audio gives back
in one layer:

    gain(l) = C(all layers) - C(all layers but l)

and in the knockout *in order* a layer's part is the mean of what it adds to C when layers are hidden one
after the other from the first on and from the last on:

    part(l) = ( C(0..l) - C(0..l-1) + C(l..n-1) - C(l+1..n-1) ) / 2

See `layer_parts` for what is measured of models of more than twelve layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mata_interp.interventions import AttentionEdit, Knockout
from mata_interp.statistics import margin as option_margin

from .layer_parts import Margins, costs_and_gains, layer_parts, starts_at_last
from .registry import Criterion, Reads, criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["cost", "costs", "whole_effect"]

GEVA = "Geva et al. 2023 (arXiv 2304.14767)"
BOTH_WAYS = "Geva's knockouts in the direction of denoising (Heimersheim & Nanda 2024, arXiv 2404.15255)"
ORDER = "Shapley values over two antithetic orders (Mitchell et al. 2022, JMLR 23:43) of Geva's knockouts"
MARGIN = "margin = log p(right option) - log p(best wrong one), nats"


def window_width(layers: int) -> int:
    """k of the sliding windows: an eighth of the layers, two at least."""
    return max(2, round(layers / 8))


def costs(context: ItemContext, queries: str) -> dict[str, np.ndarray]:
    """What hiding the audio takes from the margin, or one layer gives back, in nats.

    Args:
        context: the item.
        queries: from which queries the audio is hidden: ``"last"`` or ``"text"``.

    Returns:
        ``single`` layers, all ``others``, ``windows`` of k layers, and layers in ``order``: float64 [layers]
        each.
    """
    return {kind: cost(context, queries, kind) for kind in _KINDS}


def cost(context: ItemContext, queries: str, kind: str) -> np.ndarray:
    """One entry of `costs`: float64 [layers]. All its knockouts are one sweep over the prefill."""
    return context.memo(("knockout cost", queries, kind), lambda: _cost(context, queries, kind))


def _cost(context: ItemContext, queries: str, kind: str) -> np.ndarray:
    n = len(context.layers)
    if kind == "order":
        return layer_parts(_measured_once(context, queries), n, starts_at_last(context.item.id))
    if kind in ("single", "others"):
        both = context.memo(
            ("costs and gains", queries), lambda: costs_and_gains(_measured_once(context, queries), n)
        )
        return both[("single", "others").index(kind)]
    k = window_width(n)
    around = [tuple(range(max(0, i - (k - 1) // 2), min(n, i + k // 2 + 1))) for i in range(n)]
    margins = _margins_without(context, queries, [(), *around])
    return margins[0] - margins[1:]


def whole_effect(context: ItemContext, queries: str = "text") -> float:
    """What hiding the audio from these queries in all layers takes from the margin, nats."""
    margins = _measured_once(context, queries)([(), tuple(range(len(context.layers)))])
    return float(margins[0] - margins[1])


def _measured_once(context: ItemContext, queries: str) -> Margins:
    """`_margins_without` that knows what hiding no layer and all layers give.

    These two are measured in a call of their own, so that no result depends on the order of criteria.
    """
    ends = ((), tuple(range(len(context.layers))))
    known: dict[tuple[int, ...], float] = context.memo(
        ("margins with and without", queries),
        lambda: dict(zip(ends, _margins_without(context, queries, ends).tolist(), strict=True)),
    )

    def margins(sets: Sequence[Sequence[int]]) -> np.ndarray:
        missing = [places for places in dict.fromkeys(map(tuple, sets)) if places not in known]
        measured = _margins_without(context, queries, missing, verify=False) if missing else np.array([])
        every = known | dict(zip(missing, measured.tolist(), strict=True))
        return np.array([every[tuple(places)] for places in sets])

    return margins


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
    """One of the eight criteria: two sets of queries, four ways to choose the layers that are hidden."""
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
    "others": (
        "knockout of all other layers",
        "shares",
        f"C(all layers) - C(all layers but l), with C the fall of the {MARGIN}",
        BOTH_WAYS,
    ),
    "windows": (
        "knockout of k layers",
        "shares",
        f"C(the k layers around l), the fall of the {MARGIN}",
        GEVA,
    ),
}

CRITERIA = (
    _make("knockout_text_single", "text", "single"),
    _make("knockout_text_others", "text", "others"),
    _make("knockout_text", "text", "order"),
    _make("knockout_text_windows", "text", "windows"),
    _make("knockout_last_single", "last", "single"),
    _make("knockout_last_others", "last", "others"),
    _make("knockout_last", "last", "order"),
    _make("knockout_last_windows", "last", "windows"),
)
