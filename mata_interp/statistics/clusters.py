"""The cluster bootstrap: means over items whose clusters are resampled as a whole.

Items of one cluster (for example, questions about one recording) are not independent, so that a resample
draws clusters, not items. Every bootstrap of means in this project is `cluster_bootstrap_means`. Intervals of
means and rates are in `mata_interp.statistics.intervals`: with few clusters, percentiles of resampled means
are too narrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from ..errors import ArgumentError

__all__ = ["DRAWS", "cluster_bootstrap_means", "cluster_codes", "resampled_counts"]

DRAWS = 2000
"""Resamples. The Monte-Carlo error of a percentile interval's end is then about 4 % of its half-width. (The
bootstrap-t interval of `paired_effect` uses 9,999.)"""

_BLOCK = 4_000_000  # numbers in memory at once


def cluster_codes(labels: Iterable) -> tuple[np.ndarray, int]:
    """Number the clusters from 0, in the alphabetical order of their labels.

    Args:
        labels: The label of each item's cluster: any hashable values, ``[n]``.

    Returns:
        The cluster number of each item, int ``[n]``, and the number of clusters.

    >>> cluster_codes(["b", "a", "b"])
    (array([1, 0, 1]), 2)
    """
    labels = list(labels)
    values = np.empty(len(labels), dtype=object)
    values[:] = labels  # np.array(labels) would turn tuples into rows
    codes, names = pd.factorize(values, use_na_sentinel=False)
    order = np.argsort([str(name) for name in names], kind="stable")
    rank = np.empty(len(names), dtype=int)
    rank[order] = np.arange(len(names))
    return rank[codes], len(names)


def resampled_counts(count: int, draws: int, seed: int, columns: int = 1) -> Iterator[np.ndarray]:
    """Blocks of how often each resample of whole clusters holds each cluster: int ``[rows, count]``.

    The same count, draws and seed give the same resamples, whatever ``columns``.

    Args:
        count: Number of clusters; a resample draws as many.
        draws: Number of resamples.
        seed: Seed of the resamples.
        columns: Number of columns that the caller computes from each resample; it limits a block's size.
    """
    rng = np.random.default_rng(seed)
    chances = np.full(count, 1 / count)
    rows = max(1, _BLOCK // max(count, columns))
    for start in range(0, draws, rows):
        yield rng.multinomial(count, chances, size=min(rows, draws - start))


def cluster_bootstrap_means(
    values: np.ndarray, clusters: Iterable, draws: int = DRAWS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Means over items, and the means of bootstrap resamples that draw whole clusters.

    A resample draws as many clusters as there are, with replacement, and weights every item of a drawn
    cluster alike. The same clusters and seed give the same resamples for every column of ``values``.

    Args:
        values: One row per item, ``[n, ...]``. A NaN leaves its item out of that column only.
        clusters: The label of each item's cluster, ``[n]``.
        draws: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        The means ``[...]`` and the means of the resamples ``[draws, ...]``. A column without any value has
        the mean NaN; with fewer than two clusters every resampled mean is NaN.

    Raises:
        ArgumentError: ``clusters`` and ``values`` differ in length.

    >>> mean, resampled = cluster_bootstrap_means(np.array([1.0, 2.0, 6.0]), ["a", "a", "b"], draws=4)
    >>> float(mean), resampled.shape
    (3.0, (4,))
    """
    values = np.asarray(values, dtype=float)
    codes, n_clusters = cluster_codes(clusters)
    if len(codes) != len(values):
        raise ArgumentError(f"clusters has {len(codes)} labels for {len(values)} items; give one per item.")
    shape = values.shape[1:]
    flat = values.reshape(len(values), -1)
    present = ~np.isnan(flat)
    sums, sizes = np.zeros((2, n_clusters, flat.shape[1]))
    np.add.at(sums, codes, np.where(present, flat, 0.0))
    np.add.at(sizes, codes, present)
    with np.errstate(invalid="ignore"):
        mean = np.where(present, flat, 0.0).sum(0) / present.sum(0)
    resampled = np.full((draws, flat.shape[1]), np.nan)
    if n_clusters > 1:
        start = 0
        for counts in resampled_counts(n_clusters, draws, seed):  # (rows, cluster)
            with np.errstate(invalid="ignore"):
                resampled[start : start + len(counts)] = (counts @ sums) / (counts @ sizes)
            start += len(counts)
    return mean.reshape(shape), resampled.reshape(draws, *shape)
