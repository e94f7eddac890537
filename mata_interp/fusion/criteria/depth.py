"""Relative depth: where published layers lie, whatever the model and the items."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

DEPTH = 10 / 28, 20 / 28


@criterion(
    name="depth",
    label="relative depth",
    evidence="prior",
    reads="either",
    window_rule="marked",
    unit="1 inside",
    formula="36 to 71 % of the depth: round(10 n / 28) to round(20 n / 28) - 1 of n layers",
    source="layers 10-20 of 28, chosen by hand in arXiv 2509.18816",
)
def depth(context: ItemContext) -> np.ndarray:
    n = len(context.layers)
    first, last = (round(part * n) for part in DEPTH)
    inside = np.zeros(n)
    inside[first : max(last, first + 1)] = 1.0
    return inside


CRITERIA = (depth,)
