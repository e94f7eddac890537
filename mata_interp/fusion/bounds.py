"""How sure the boundaries of a window are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mata_interp.ranges import runs

__all__ = ["Boundary", "boundaries"]

Boundary = dict[str, Any]
"""``first`` and ``last`` layer of one unbroken piece of a window; of each, ``first_interval`` and
``last_interval``, the 95 % bootstrap interval over clips (None with too few clips); ``found``, the fraction
of resamples with any piece that overlaps it."""


def boundaries(inside: np.ndarray, drawn: np.ndarray, layers: Sequence[int]) -> list[Boundary]:
    """Of each piece of the window bool [n], from the windows of resamples bool [D, n]."""
    pieces = runs(np.flatnonzero(inside).tolist())
    each = [runs(np.flatnonzero(row).tolist()) for row in drawn]
    found: list[Boundary] = []
    for first, last in pieces:
        ends = []
        for others in each:
            near = [(a, b) for a, b in others if a <= last and b >= first]
            if near:
                ends.append((near[0][0], near[-1][1]))
        told: Boundary = {"first": layers[first], "last": layers[last]}
        told["found"] = len(ends) / len(each) if each else None
        for place, name in enumerate(("first_interval", "last_interval")):
            told[name] = _interval([end[place] for end in ends], layers) if ends else None
        found.append(told)
    return found


def _interval(places: list[int], layers: Sequence[int]) -> list[int]:
    """2.5 and 97.5 % of whole numbers, as layers."""
    low = np.percentile(places, 2.5, method="inverted_cdf")
    high = np.percentile(places, 97.5, method="inverted_cdf")
    return [layers[int(low)], layers[int(high)]]
