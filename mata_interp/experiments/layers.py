"""Which layers a study tries: contiguous windows as candidates, random layers as a control."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["candidate_windows", "random_layers"]


def candidate_windows(layers: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Contiguous windows of a quarter and of a half of ``layers``, sliding by about half their width.

    About ten windows at any depth: 28 layers give widths 7 and 14, eight layers give widths 2 and 4.
    ``layers`` are the decoder's attention layers in order; contiguous means neighbours among these.
    """
    depth = len(layers)
    windows: dict[tuple[int, ...], None] = {}
    for width in sorted({math.ceil(depth / 4), math.ceil(depth / 2)}):
        starts = range(0, depth - width + 1, math.ceil(width / 2))
        for start in dict.fromkeys([*starts, depth - width]):  # the last window ends at the last layer
            windows[tuple(layers[start : start + width])] = None
    return tuple(windows)


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
