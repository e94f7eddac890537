"""The cluster bootstrap: cluster numbers and resampled means."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mata_interp.errors import ArgumentError
from mata_interp.statistics import cluster_bootstrap_means, cluster_codes


def test_cluster_numbers_follow_the_sorted_labels():
    codes, n = cluster_codes(["b", "a", "b", "c"])
    assert (codes.tolist(), n) == ([1, 0, 1, 2], 3)
    codes, n = cluster_codes([("x", 1), ("x", 2), ("x", 1)])
    assert (codes.tolist(), n) == ([0, 1, 0], 2)
    assert cluster_codes([])[1] == 0


def test_resampled_means_have_the_distribution_of_all_resamples():
    """Three clusters: the 27 equally likely resamples, enumerated."""
    values, clusters = np.array([1.0, 2.0, 6.0, 0.0]), ["a", "a", "b", "c"]
    sums, sizes = np.array([3.0, 6.0, 0.0]), np.array([2, 1, 1])
    exact = [sums[list(d)].sum() / sizes[list(d)].sum() for d in product(range(3), repeat=3)]
    mean, resampled = cluster_bootstrap_means(values, clusters, draws=20_000)
    assert mean == values.mean()
    assert resampled.mean() == pytest.approx(np.mean(exact), abs=0.05)
    assert resampled.std() == pytest.approx(np.std(exact), abs=0.05)
    assert set(resampled.round(9)) == set(np.round(exact, 9))


def test_columns_share_resamples_and_blocks_do_not_change_them(monkeypatch):
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=(30, 2, 3)), np.repeat(np.arange(10), 3)
    mean, resampled = cluster_bootstrap_means(values, clusters, draws=50, seed=4)
    alone = cluster_bootstrap_means(values[:, 1, 2], clusters, draws=50, seed=4)[1]
    np.testing.assert_allclose(resampled[:, 1, 2], alone, rtol=0, atol=1e-15)
    monkeypatch.setattr("mata_interp.statistics.clusters._BLOCK", 70)
    in_blocks = cluster_bootstrap_means(values, clusters, draws=50, seed=4)[1]
    np.testing.assert_allclose(in_blocks, resampled, rtol=0, atol=1e-14)
    np.testing.assert_allclose(mean, values.mean(0), rtol=0, atol=1e-15)


def test_labels_and_items_must_match():
    with pytest.raises(ArgumentError, match="2 labels for 3 items"):
        cluster_bootstrap_means(np.zeros(3), ["a", "b"])
