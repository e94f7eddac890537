"""The layers that the papers edit, whatever the model and the items."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mata_interp.interventions import published_layers

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext


@criterion(
    "depth", "published layers", "prior", "either", "marked", "1 inside",
    "layers 10-20 of 28 or 32 layers; else layers round(10 n / 28) to round(21 n / 28) - 1 of n",
    "layers 10-20 of 28, picked by hand in arXiv 2509.18816",
)  # fmt: skip
def depth(case: ItemContext) -> np.ndarray:
    inside = np.zeros(len(case.layers))
    inside[list(published_layers(len(case.layers)))] = 1.0
    return inside
