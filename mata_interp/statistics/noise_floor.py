"""The noise floor of a map: how far from 0 its largest place lies where nothing has an effect."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import ArgumentError
from .clusters import cluster_codes
from .simultaneous import cluster_sums

__all__ = ["noise_floor"]

DRAWS = 9_999
_BLOCK = 2_000_000  # numbers in memory at once


def noise_floor(
    changes: np.ndarray,
    clusters: Iterable | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """The quantile of the largest absolute mean change when the sign of every cluster is drawn at random.

    Where an edit does nothing, a clip's change (rounding, an accident of its sound) could as well have had
    the other sign. One pattern of signs is applied to all places at once, so that their correlation is kept,
    and the largest absolute mean over places is noted; the ``level`` quantile of its distribution over
    patterns is the floor: if no edit does anything, all places of a map lie below it in 95 % of maps. True
    effects raise the floor (flipped, they look like noise), so that it is too high rather than too low. It is
    one number in the unit of the changes, for reading a map; `max_t` gives adjusted p-values.

    Args:
        changes: after - before of each item at each place, float ``[n, k]``.
        clusters: label of each item's cluster, ``[n]``; None: each item is its own.
        level: of the quantile, between 0 and 1.
        draws: number of patterns of signs.
        seed: seed of the patterns.

    Raises:
        ArgumentError: the shapes do not fit, a value is not finite, or there is no such level.

    See Also:
        max_t: studentised, with p-values.

    Examples:
        >>> import numpy as np
        >>> from mata_interp.statistics import noise_floor
        >>> noise = np.random.default_rng(0).normal(0.0, 1.0, (400, 50))
        >>> bool(0.1 < noise_floor(noise) < 0.2)  # of one place alone it would be 1.96 / 20 = 0.098
        True
    """
    values = np.asarray(changes, dtype=float)
    if values.ndim != 2 or not values.size:
        raise ArgumentError(f"changes is {values.shape}: it needs rows of items and columns of places.")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ArgumentError(f"changes[{row}, {column}] is {values[row, column]}: leave incomplete items out.")
    if not 0 < level < 1:
        raise ArgumentError(f"level is {level}: it must lie between 0 and 1.")
    codes, count = cluster_codes(range(len(values)) if clusters is None else list(clusters))
    if len(codes) != len(values):
        raise ArgumentError(f"clusters names {len(codes)} items, but there are {len(values)}.")
    sums = cluster_sums(values, codes, count)[0] / len(values)  # (G, k): each cluster's part of the means
    generator, largest = np.random.default_rng(seed), []
    rows = max(1, _BLOCK // max(sums.shape))
    for start in range(0, draws, rows):
        signs = 1.0 - 2.0 * generator.integers(0, 2, (min(rows, draws - start), count))
        largest.append(np.abs(signs @ sums).max(1))
    return float(np.quantile(np.concatenate(largest), level, method="higher"))
