"""Bootstrap intervals of the boundaries of a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mata_interp.ranges import runs

__all__ = ["Boundary", "boundaries"]

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
    found: list[Boundary] = []
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
        boundary["first_interval"] = _interval(firsts, layers) if firsts else None
        boundary["last_interval"] = _interval(lasts, layers) if lasts else None
        found.append(boundary)
    return found


def _interval(places: list[int], layers: Sequence[int]) -> list[int]:
    """The 2.5th and 97.5th percentile of positions, as layers."""
    low = np.percentile(places, 2.5, method="inverted_cdf")
    high = np.percentile(places, 97.5, method="inverted_cdf")
    return [layers[int(low)], layers[int(high)]]
