"""Intervals of profiles and maps."""

from __future__ import annotations

import numpy as np

from mata_interp.statistics import clustered_interval


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
