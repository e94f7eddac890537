"""Random layers, the control of a window that was chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["random_layers"]


def random_layers(
    layers: Sequence[int], window: Sequence[int], draws: int, seed: int
) -> tuple[tuple[int, ...], ...]:
    """``draws`` different random sets of ``len(window)`` layers, outside ``window`` where possible.

    Where too few such sets lie wholly outside (a window of half the depth leaves a single one), the rest
    share one layer with the window, then two, and so on; never the window itself. Fewer sets than ``draws``
    come back only if no more exist.
    """
    rng = np.random.default_rng(seed)
    inside = [layer for layer in layers if layer in set(window)]
    outside = [layer for layer in layers if layer not in set(window)]
    width = len(inside)
    found: list[tuple[int, ...]] = []
    for shared in range(max(0, width - len(outside)), width):
        possible = math.comb(len(inside), shared) * math.comb(len(outside), width - shared)
        wanted = len(found) + min(draws - len(found), possible)
        while len(found) < wanted:
            drawn = [
                *rng.choice(inside, shared, replace=False),
                *rng.choice(outside, width - shared, replace=False),
            ]
            candidate = tuple(sorted(int(layer) for layer in drawn))
            if candidate not in found:
                found.append(candidate)
    return tuple(found)
