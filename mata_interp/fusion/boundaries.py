"""Bootstrap intervals of the boundaries of a window.

A boundary is a whole number, and most resamples often agree on it. The interval is therefore the shortest
that holds the boundary itself and 95 % of the resamples: cutting 2.5 % off each end would also take in a
layer that only 3 % of them have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mata_interp.ranges import runs

__all__ = ["Boundary", "boundaries"]

LEVEL = 0.95  # of the intervals

Boundary = dict[str, Any]
"""One contiguous run of layers of a window: its ``first`` and ``last`` layer; ``first_interval`` and
``last_interval``, their 95 % bootstrap intervals over clips (None with too few clips); and ``found``, the
fraction of resamples with any run that overlaps it (None without resamples)."""


def boundaries(inside: np.ndarray, resampled: np.ndarray, layers: Sequence[int]) -> list[Boundary]:
    """The boundaries of each contiguous run of a window.

    Args:
        inside: the window, bool [n].
        resampled: windows of D bootstrap resamples, bool [D, n].
        layers: index of each of the n layers.

    >>> inside = np.array([False, True, True, False])
    >>> boundaries(inside, np.array([inside, inside]), layers=[4, 5, 6, 7])[0]["first_interval"]
    [5, 5]
    """
    runs_per_resample = [runs(np.flatnonzero(row).tolist()) for row in resampled]
    result: list[Boundary] = []
    for first, last in runs(np.flatnonzero(inside).tolist()):
        firsts: list[int] = []
        lasts: list[int] = []
        for pieces in runs_per_resample:
            overlapping = [(a, b) for a, b in pieces if a <= last and b >= first]
            if overlapping:
                firsts.append(overlapping[0][0])
                lasts.append(overlapping[-1][1])
        boundary: Boundary = {"first": layers[first], "last": layers[last]}
        boundary["found"] = len(firsts) / len(runs_per_resample) if runs_per_resample else None
        boundary["first_interval"] = _interval(firsts, first, layers) if firsts else None
        boundary["last_interval"] = _interval(lasts, last, layers) if lasts else None
        result.append(boundary)
    return result


def _interval(places: list[int], place: int, layers: Sequence[int]) -> list[int]:
    """The shortest interval that holds ``place`` and 95 % of ``places``, as layers.

    Of several, the one that holds most; of equals, the first.

    >>> _interval([1] * 3 + [2] * 95 + [4] * 2, 2, layers=range(5))
    [2, 2]
    """
    below = np.cumsum(np.bincount(places, minlength=len(layers)))  # places up to each position
    options = [
        (high - low, -held, low, high)
        for low in range(place + 1)
        for high in range(place, len(layers))
        if (held := below[high] - (below[low - 1] if low else 0)) >= LEVEL * len(places)
    ]
    _, _, low, high = min(options)
    return [layers[low], layers[high]]
