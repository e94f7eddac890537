"""Random layers: the control of a chosen window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["random_layers"]


def random_layers(
    layers: Sequence[int], window: Sequence[int], draws: int, seed: int
) -> tuple[tuple[int, ...], ...]:
    """Draw different random sets of ``len(window)`` layers, outside ``window`` where possible.

    Where too few such sets lie outside the window (a window of half the depth leaves a single one), the rest
    share one layer with it, then two, and so on, but are never the window itself.

    Args:
        layers: The layers to draw from.
        window: The chosen layers.
        draws: Number of sets.
        seed: Seed of the draws.

    Returns:
        The sets; fewer than ``draws`` only if no more exist.

    >>> random_layers(range(4), [0], draws=3, seed=0)
    ((3,), (2,), (1,))
    """
    rng = np.random.default_rng(seed)
    inside = [layer for layer in layers if layer in set(window)]
    outside = [layer for layer in layers if layer not in set(window)]
    width = len(inside)
    chosen: list[tuple[int, ...]] = []
    for shared in range(max(0, width - len(outside)), width):
        possible = math.comb(len(inside), shared) * math.comb(len(outside), width - shared)
        number = len(chosen) + min(draws - len(chosen), possible)
        while len(chosen) < number:
            members = [
                *rng.choice(inside, shared, replace=False),
                *rng.choice(outside, width - shared, replace=False),
            ]
            candidate = tuple(sorted(int(layer) for layer in members))
            if candidate not in chosen:
                chosen.append(candidate)
    return tuple(chosen)
