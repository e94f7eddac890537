"""Means of many numbers at once over the same items, with intervals: a profile over layers, a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["clustered_interval"]

DRAWS = 2000  # of the bootstrap; the interval's own error is then far below a line's width


def clustered_interval(
    values: np.ndarray, clusters: Sequence[str] | np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of ``values`` [item, ...] over items and its 95 % percentile bootstrap interval, clusters whole.

    For looking at, each number by itself: no test, and not corrected for how many there are. The same draws
    serve all numbers. With a single cluster there is no interval (NaN).

    Returns:
        mean, low, high: [...].
    """
    names, index = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    flat = values.reshape(len(values), -1)
    sums = np.zeros((len(names), flat.shape[1]))
    np.add.at(sums, index, flat)
    sizes = np.bincount(index, minlength=len(names)).astype(float)
    even = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), even, size=DRAWS)
    low, high = np.percentile((drawn @ sums) / (drawn @ sizes)[:, None], [2.5, 97.5], axis=0)
    if len(names) < 2:
        low, high = np.full((2, flat.shape[1]), np.nan)
    shape = values.shape[1:]
    return values.mean(0), low.reshape(shape), high.reshape(shape)
