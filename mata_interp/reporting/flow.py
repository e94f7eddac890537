"""The flow of answers of the primary comparison: what was corrected, broken, churned or left alone."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ..statistics import count_flips
from .comparisons import where
from .figures.flow import Flow, flow
from .figures.svg import figure_part
from .parts import FigurePart
from .wording import count, percent

__all__ = ["flow_figure"]


def flow_figure(
    records: pd.DataFrame, before: str, after: str, subset: Mapping[str, str]
) -> FigurePart | None:
    """The figure for two conditions on the items of a subset; None if either has no answers there."""
    part = where(records.dropna(subset=["answer"]), subset)
    sides = [part.loc[part["condition"] == name].set_index("item") for name in (before, after)]
    items = sides[0].index.intersection(sides[1].index).sort_values()
    if not len(items):
        return None
    first, second = (side.loc[items] for side in sides)
    predicted = [
        side["predicted"].astype(object).where(side["predicted"].notna(), None) for side in (first, second)
    ]
    flips = count_flips(predicted[0].tolist(), predicted[1].tolist(), first["answer"].tolist())
    right = int((first["correct"].astype(bool) & second["correct"].astype(bool)).sum())
    counts = Flow(right, flips.fixed, flips.broken, flips.churned, flips.unchanged - right)
    changed = counts.n - flips.unchanged
    return figure_part(
        "flow",
        lambda width: flow(counts, width),
        "Answers before and after, by what happened to them",
        "What happened to the answers.",
        f"{count(changed, 'answer')} of {counts.n:,} ({percent(changed / counts.n)}) changed: {flips.fixed} "
        f"corrected, {flips.broken} broken, {flips.churned} churned from one wrong answer to another, which "
        "accuracy does not show.",
    )
