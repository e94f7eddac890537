"""Simultaneous bands: intervals for many means at once, all of which hold together.

A pointwise 95 % interval misses in 5 % of columns, so that of 30 layers one or two stand out by chance. The
bands here are max-T bands: a cluster bootstrap gives the distribution of the largest studentised deviation
over all columns, and its 95 % quantile takes the place of 1.96. The correlation between columns is kept.
Studentised (bootstrap-t) intervals hold at small numbers of clusters, where percentile intervals are too
narrow (Hall 1992, The Bootstrap and Edgeworth Expansion, section 3.5; Romano and Wolf 2005, Econometrica
73:1237 for max-T).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError
from .clusters import cluster_codes, resampled_counts

__all__ = ["MIN_CLUSTERS", "SimultaneousBand", "largest_deviations", "simultaneous_band"]

DRAWS = 2000
MIN_CLUSTERS = 6
"""Fewer clusters give no band: too few different resamples exist to estimate a standard error in each."""

FLOOR = 0.25  # a resample's standard error is at least this part of the sample's; see `simultaneous_band`


@dataclass(frozen=True, eq=False, repr=False)
class SimultaneousBand:
    """Means with a band that holds for all columns together.

    Attributes:
        mean: mean over items, float64 ``[k]``.
        se: cluster-robust standard error of each mean, float64 ``[k]``.
        critical: the two-sided critical value: ``low`` and ``high`` are ``mean -+ critical * se``.
        critical_one_sided: the critical value for lower bounds alone.
        clusters: number of clusters.
        level: coverage of the band.

    Examples:
        >>> import numpy as np
        >>> from mata_interp.statistics import simultaneous_band
        >>> values = np.random.default_rng(0).normal([0.0, 1.0], 1.0, (50, 2))
        >>> band = simultaneous_band(values, range(50))
        >>> (band.low > 0).tolist()
        [False, True]
    """

    mean: np.ndarray
    se: np.ndarray
    critical: float
    critical_one_sided: float
    clusters: int
    level: float

    @property
    def low(self) -> np.ndarray:
        """Lower ends, ``[k]``."""
        return self.mean - self.critical * self.se

    @property
    def high(self) -> np.ndarray:
        """Upper ends, ``[k]``."""
        return self.mean + self.critical * self.se

    def __repr__(self) -> str:
        return f"<SimultaneousBand of {len(self.mean)} means over {self.clusters} clusters>"


def simultaneous_band(
    values: np.ndarray, clusters: Iterable, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> SimultaneousBand:
    """Means over items with a simultaneous band from a studentised cluster bootstrap (max-T).

    With cluster sums S_g and sizes m_g, the mean is sum S_g / sum m_g and its squared standard error
    G/(G - 1) sum (S_g - mean m_g)^2 / (sum m_g)^2. In each resample of whole clusters the same two are
    computed, and the largest |mean* - mean| / se* over columns is kept. A resample that holds one cluster
    many times can have a standard error of almost 0; se* is therefore at least a quarter of se.

    Args:
        values: one row per item, float ``[n, k]``, without NaN.
        clusters: label of each item's cluster, ``[n]``.
        level: coverage of the band.
        draws: number of resamples.
        seed: seed of the resamples.

    Returns:
        The band. With fewer than 6 clusters its critical values are infinite. A column that is constant has
        the standard error 0 and takes no part in the maximum.

    Raises:
        ArgumentError: ``clusters`` and ``values`` differ in length, a value is not finite, or ``level`` is
            not between 0 and 1.
    """
    values = np.asarray(values, dtype=float)
    codes, count = cluster_codes(clusters)
    if values.ndim != 2 or len(codes) != len(values):
        raise ArgumentError(f"values is {values.shape}: it needs a row for each of {len(codes)} labels.")
    if not np.isfinite(values).all():
        raise ArgumentError("A simultaneous band needs finite values: leave out incomplete items.")
    if not 0 < level < 1:
        raise ArgumentError(f"level is {level}: it must lie between 0 and 1.")
    sums, sizes = cluster_sums(values, codes, count)
    mean, se = mean_and_error(np.ones((1, count)), sums, sizes)
    if count < MIN_CLUSTERS:
        return SimultaneousBand(mean[0], se[0], np.inf, np.inf, count, level)
    two_sided, one_sided = [], []
    for counts in resampled_counts(count, draws, seed, values.shape[1]):
        means, errors = mean_and_error(counts, sums, sizes)
        two, one = largest_deviations(means - mean, errors, se)
        two_sided.append(two)
        one_sided.append(one)
    critical, upper = (float(np.quantile(np.concatenate(t), level)) for t in (two_sided, one_sided))
    return SimultaneousBand(mean[0], se[0], critical, upper, count, level)


def largest_deviations(
    apart: np.ndarray, errors: np.ndarray, se: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Largest size, and largest value, of studentised deviations over columns: two arrays ``[D, ...]``.

    Args:
        apart: means of resamples minus the mean, ``[D, ..., k]``.
        errors: standard errors in the resamples, ``[D, ..., k]``; at least `FLOOR` of ``se`` is used.
        se: standard error of each column, ``[..., k]``; a column with 0 takes no part.
    """
    moving = se > 0
    deviation = np.where(moving, apart, 0.0) / np.where(moving, np.maximum(errors, FLOOR * se), 1.0)
    return np.abs(deviation).max(-1), deviation.max(-1)


def cluster_sums(values: np.ndarray, codes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the columns over each cluster's items ``[count, k]``, and numbers of items ``[count]``."""
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, codes, values)
    return sums, np.bincount(codes, minlength=count).astype(float)


def mean_and_error(counts: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over items and their cluster-robust standard errors in samples that hold clusters repeatedly.

    Args:
        counts: how often each sample holds each cluster, ``[D, G]``.
        sums: ``[G, k]``, from `cluster_sums`.
        sizes: ``[G]``.

    Returns:
        Two arrays ``[D, k]``.
    """
    total = counts @ sizes  # (D,)
    mean = counts @ sums / total[:, None]
    squares = counts @ sums**2 - 2 * mean * (counts @ (sums * sizes[:, None]))
    squares += mean**2 * (counts @ sizes**2)[:, None]
    # what is left of a difference of equal numbers is rounding
    squares = np.where(squares > 1e-12 * (counts @ sums**2), squares, 0.0)
    groups = counts.shape[1]
    variance = squares * groups / max(groups - 1, 1)
    return mean, np.sqrt(variance) / total[:, None]
