"""Random layers."""

from __future__ import annotations

from math import comb

from hypothesis import given
from hypothesis import strategies as st

from mata_interp.experiments.random_layers import random_layers


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
