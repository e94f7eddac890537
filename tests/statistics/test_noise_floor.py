"""The noise floor against all patterns of signs, and its coverage where nothing has an effect."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mata_interp.errors import ArgumentError
from mata_interp.statistics import noise_floor


def plain_floor(changes, clusters, level):
    """Every pattern of signs of clusters, with item means written out."""
    names = sorted(set(clusters))
    largest = []
    for signs in product([-1, 1], repeat=len(names)):
        sign_of = dict(zip(names, signs, strict=True))
        flipped = [[sign_of[name] * x for x in row] for name, row in zip(clusters, changes, strict=True)]
        largest.append(max(abs(sum(column) / len(changes)) for column in zip(*flipped, strict=True)))
    return sorted(largest)[int(np.ceil(level * len(largest))) - 1]


def test_it_is_the_quantile_over_all_patterns():
    rng = np.random.default_rng(0)
    clusters = ["a", "b", "b", "c", "d", "e", "f", "g", "g", "g"]
    changes = rng.normal(0, 1, (10, 4))
    for level in (0.5, 0.9):
        exact = plain_floor(changes.tolist(), clusters, level)
        assert noise_floor(changes, clusters, level) == pytest.approx(exact, rel=0.02)


def test_where_nothing_has_an_effect_all_places_lie_below_it_in_19_of_20_maps():
    rng = np.random.default_rng(1)
    beyond = 0
    for draw in range(400):
        clips = rng.normal(0, 1, (30, 12)) @ rng.normal(0, 1, (12, 12))  # places are correlated
        changes = np.repeat(clips, 2, 0) + rng.normal(0, 0.3, (60, 12))
        floor = noise_floor(changes, np.repeat(range(30), 2), draws=400, seed=draw)
        beyond += np.abs(changes.mean(0)).max() > floor
    assert 0.025 < beyond / 400 < 0.08


def test_an_effect_stands_out():
    changes = np.random.default_rng(2).normal(0, 1, (80, 20))
    changes[:, 7] += 1.0
    floor = noise_floor(changes)
    beyond = np.abs(changes.mean(0)) / floor
    assert beyond.argmax() == 7
    assert beyond[7] > 2
    assert np.delete(beyond, 7).max() < 1.1


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        (np.zeros(3), {}, "rows of items"),
        (np.zeros((0, 3)), {}, "rows of items"),
        (np.array([[0.0, np.nan]]), {}, r"changes\[0, 1\]"),
        (np.zeros((3, 2)), {"level": 1.0}, "level"),
        (np.zeros((3, 2)), {"clusters": ["a"]}, "clusters"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        noise_floor(changes, **arguments)
