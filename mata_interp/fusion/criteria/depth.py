"""The layers that the papers edit, whatever the model and the items."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mata_interp.interventions import published_layers

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext


@criterion(
    name="depth",
    label="published layers",
    evidence="prior",
    reads="either",
    window_rule="marked",
    unit="1 inside",
    formula="layers 10-20 of 28 or 32 layers; else layers round(10 n / 28) to round(21 n / 28) - 1 of n",
    source="layers 10-20 of 28, chosen by hand in arXiv 2509.18816",
)
def depth(context: ItemContext) -> np.ndarray:
    inside = np.zeros(len(context.layers))
    inside[list(published_layers(len(context.layers)))] = 1.0
    return inside


CRITERIA = (depth,)
