"""The cluster bootstrap: cluster numbers, resampled means, and intervals of profiles and maps."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mata_interp.errors import ArgumentError
from mata_interp.statistics import cluster_bootstrap_means, cluster_codes, clustered_interval


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


def test_a_missing_value_leaves_out_its_item_in_its_column_only():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(40, 3))
    values[5, 1] = np.nan
    values[:, 2] = np.nan
    mean, low, high = clustered_interval(values, np.arange(40))
    rest = np.delete(values[:, 1], 5)
    assert mean[1] == pytest.approx(rest.mean())
    assert low[1] < mean[1] < high[1]
    whole = clustered_interval(values[:, :1], np.arange(40))
    np.testing.assert_allclose([mean[0], low[0], high[0]], np.ravel(whole), rtol=0, atol=1e-15)
    assert np.isnan([mean[2], low[2], high[2]]).all()


def test_labels_and_items_must_match():
    with pytest.raises(ArgumentError, match="2 labels for 3 items"):
        cluster_bootstrap_means(np.zeros(3), ["a", "b"])


def test_interval_over_clips_draws_whole_clips():
    rng = np.random.default_rng(1)
    by_clip = rng.normal(0, 1, (40, 2))
    values, clips = np.repeat(by_clip, 5, axis=0), np.repeat(np.arange(40), 5)
    mean, low, high = clustered_interval(values, clips)
    error = by_clip.std(0) / np.sqrt(40)  # five copies of an item tell no more than one
    np.testing.assert_allclose(mean, by_clip.mean(0))
    np.testing.assert_allclose((high - low) / 2, 1.96 * error, rtol=0.12)
    _, low_of_items, high_of_items = clustered_interval(values, np.arange(200))
    assert ((high_of_items - low_of_items) < 0.6 * (high - low)).all()


def test_maps_keep_their_shape_and_one_clip_has_no_interval():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (30, 2, 3))
    mean, low, high = clustered_interval(values, np.arange(30))
    flat = clustered_interval(values.reshape(30, 6), np.arange(30))
    for shaped, plain in zip((mean, low, high), flat, strict=True):
        assert shaped.shape == (2, 3)
        np.testing.assert_array_equal(shaped.ravel(), plain)
    assert ((low < mean) & (mean < high)).all()
    assert np.isnan(clustered_interval(values, ["a"] * 30)[1]).all()
