"""Simultaneous bands against a plain loop, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from mata_interp.errors import ArgumentError
from mata_interp.statistics import simultaneous_band
from mata_interp.statistics.clusters import cluster_codes, resampled_counts
from mata_interp.statistics.simultaneous import FLOOR, MIN_CLUSTERS


def reference(values: np.ndarray, clusters: list[str], level: float, draws: int, seed: int):
    """Mean, standard error and critical values by loops over resamples, clusters and columns."""
    codes, count = cluster_codes(clusters)
    members = [values[codes == g] for g in range(count)]

    def estimate(sample: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        items = np.concatenate(sample)
        mean = items.mean(0)
        residuals = np.array([(cluster - mean).sum(0) for cluster in sample])
        return mean, np.sqrt(len(sample) / (len(sample) - 1) * (residuals**2).sum(0)) / len(items)

    mean, se = estimate(members)
    deviations = []
    for counts in resampled_counts(count, draws, seed):
        for row in counts:
            again, error = estimate([members[g] for g in range(count) for _ in range(row[g])])
            deviations.append((again - mean) / np.maximum(error, FLOOR * se))
    two_sided, one_sided = np.abs(deviations).max(1), np.max(deviations, 1)
    return mean, se, np.quantile(two_sided, level), np.quantile(one_sided, level)


@pytest.mark.parametrize("per_clip", [1, 3])
def test_against_a_loop(per_clip):
    rng = np.random.default_rng(0)
    clusters = [f"clip {i // per_clip}" for i in range(8 * per_clip + 1)]
    values = rng.normal(0, [1.0, 3.0, 0.1], (len(clusters), 3)) + rng.normal(0, 1, (len(clusters), 1))
    band = simultaneous_band(values, clusters, 0.9, 200, 5)
    mean, se, critical, upper = reference(values, clusters, 0.9, 200, 5)
    np.testing.assert_allclose(band.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(band.se, se, rtol=1e-10)
    assert (band.critical, band.critical_one_sided) == pytest.approx((critical, upper), rel=1e-9)
    np.testing.assert_allclose(band.high - band.mean, critical * se, rtol=1e-9)


def test_the_band_holds_for_all_columns_together():
    """Of 200 samples of 30 clips and 20 correlated, skewed columns, 5 % may miss (99.9 %: 21)."""
    misses, pointwise = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        shared = rng.exponential(1.0, (30, 1))
        values = 0.5 * shared + 0.5 * rng.exponential(1.0, (30, 20)) - 1.0  # every mean is 0
        band = simultaneous_band(values, range(30), draws=300, seed=seed)
        misses += bool(((band.low > 0) | (band.high < 0)).any())
        pointwise += bool((np.abs(band.mean) > 1.96 * band.se).any())
    assert misses <= 21
    assert pointwise > 40  # the same data without the correction


def test_a_constant_column_takes_no_part():
    values = np.random.default_rng(0).normal(0, 1, (20, 1))
    alone = simultaneous_band(values, range(20))
    beside = simultaneous_band(np.c_[values, np.ones(20)], range(20))
    assert alone.critical == pytest.approx(beside.critical, rel=1e-12)
    assert beside.low[1] == beside.high[1] == 1.0


def test_too_few_clusters_have_no_band():
    band = simultaneous_band(np.ones((20, 2)), [i % (MIN_CLUSTERS - 1) for i in range(20)])
    assert (band.critical, band.clusters) == (np.inf, MIN_CLUSTERS - 1)


WRONG = [(np.full((8, 1), np.nan), 0.9), (np.ones((7, 1)), 0.9), (np.ones((8, 1)), 1.0)]


@pytest.mark.parametrize(("values", "level"), WRONG, ids=["not finite", "too few rows", "level"])
def test_bad_arguments(values, level):
    with pytest.raises(ArgumentError):
        simultaneous_band(values, range(8), level)
