"""Candidate windows and random layers."""

from __future__ import annotations

from math import comb

from hypothesis import given
from hypothesis import strategies as st

from mata_interp.experiments.layers import candidate_windows, random_layers


def test_windows_of_eight_layers():
    windows = candidate_windows(range(8))
    assert windows == (*((i, i + 1) for i in range(7)), (0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 7))


@given(st.integers(1, 80), st.integers(1, 3))
def test_windows_are_contiguous_cover_every_layer_and_stay_few(depth, step):
    layers = range(0, depth * step, step)  # blocks without attention lie between
    windows = candidate_windows(layers)
    assert len(windows) <= 11
    assert {layer for window in windows for layer in window} == set(layers)
    for window in windows:
        first = layers.index(window[0])
        assert window == tuple(layers[first : first + len(window)])
        assert len(window) in (-(-depth // 4), -(-depth // 2))


@given(st.integers(2, 40), st.data())
def test_random_layers_are_distinct_of_equal_width_and_outside_where_possible(depth, data):
    layers = list(range(depth))
    width = data.draw(st.integers(1, depth))
    start = data.draw(st.integers(0, depth - width))
    window = tuple(layers[start : start + width])
    draws = random_layers(layers, window, 5, seed=data.draw(st.integers(0, 9)))
    assert len(draws) == min(5, comb(depth, width) - 1)  # every set but the window itself
    assert len(set(draws)) == len(draws)
    assert window not in draws
    assert all(len(draw) == width == len(set(draw)) and set(draw) <= set(layers) for draw in draws)
    outside = sum(not set(draw) & set(window) for draw in draws)
    assert outside == min(5, comb(depth - width, width))


def test_random_layers_depend_on_the_seed_alone():
    assert random_layers(range(28), range(10, 17), 5, seed=3) == random_layers(
        range(28), range(10, 17), 5, seed=3
    )
    assert random_layers(range(28), range(10, 17), 5, seed=3) != random_layers(
        range(28), range(10, 17), 5, seed=4
    )
