"""Parts of layers against Shapley values over two orders, and what is measured of deep models."""

from __future__ import annotations

import numpy as np
import pytest

from mata_interp.fusion.criteria.layer_parts import THOROUGH, costs_and_gains, layer_parts, starts_at_last


def measuring(effect, sets_measured):
    """Margins under an additive effect; the sets of layers that were measured go to ``sets_measured``."""

    def margins(sets):
        sets_measured.extend(tuple(some) for some in sets)
        return np.array([5.0 - effect[list(some)].sum() for some in sets])

    return margins


def redundant(pair, sets_measured):
    """Either layer of a pair suffices: the effect is lost when both are changed."""

    def margins(sets):
        sets_measured.extend(tuple(some) for some in sets)
        return np.array([1.0 - ({*pair} <= {*some}) for some in sets])

    return margins


@pytest.mark.parametrize("from_last", [False, True])
def test_shallow_models_are_measured_in_both_orders(from_last):
    sets_measured: list = []
    np.testing.assert_array_equal(
        layer_parts(redundant((2, 5), sets_measured), THOROUGH, from_last),
        np.eye(THOROUGH)[[2, 5]].sum(0) / 2,
    )
    assert len(sets_measured) == 2 * (THOROUGH + 1)


@pytest.mark.parametrize("from_last", [False, True])
@pytest.mark.parametrize("n", [13, 16, 30, 61])
def test_deep_models_are_measured_where_the_effect_is(n, from_last):
    """Exact where blocks without an effect have none, and cheap."""
    effect, sets_measured = np.zeros(n), []
    effect[[n - 4, n - 3]] = 1.0, 0.4
    np.testing.assert_allclose(
        layer_parts(measuring(effect, sets_measured), n, from_last), effect, atol=1e-12
    )
    assert len(sets_measured) < 0.8 * n
    everywhere: list = []
    noisy = np.random.default_rng(n).normal(0.2, 0.5, n)
    layer_parts(measuring(noisy, everywhere), n, from_last)
    assert len(everywhere) <= n + 1


@pytest.mark.parametrize("from_last", [False, True])
def test_what_a_block_adds_is_known_within_its_bound(from_last):
    """Positive effects everywhere: each layer's part is off by at most 2 % of the whole."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        effect = rng.exponential(1.0, 30) ** 4
        parts = layer_parts(measuring(effect, []), 30, from_last)
        assert parts.sum() == pytest.approx(effect.sum())
        assert np.abs(parts - effect).max() <= 0.02 * effect.sum()


@pytest.mark.parametrize("n", [5, THOROUGH, 13, 16, 30, 61])
def test_costs_and_gains_of_an_additive_effect_are_the_effect(n):
    """Exact where blocks without an effect have none; of a deep model few layers are measured."""
    effect, sets_measured = np.zeros(n), []
    effect[[1, n - 3, n - 2]] = -0.3, 1.0, 0.4
    for values in costs_and_gains(measuring(effect, sets_measured), n):
        np.testing.assert_allclose(values, effect, atol=1e-12)
    assert len(set(sets_measured)) <= (2 + 2 * n if n <= THOROUGH else 2 + 12 + 4 * -(-n // 6))


@pytest.mark.parametrize("n", [8, 13, 30])
def test_layers_of_which_either_suffices_have_a_gain_and_no_cost(n):
    costs, gains = costs_and_gains(redundant((1, n - 2), []), n)
    np.testing.assert_array_equal(costs, np.zeros(n))
    np.testing.assert_array_equal(gains, np.eye(n)[[1, n - 2]].sum(0))


@pytest.mark.parametrize("n", [8, 13, 30])
def test_layers_that_need_each_other_have_a_cost_and_no_gain(n):
    """The effect is lost when one of them is changed."""

    def margins(sets):
        return np.array([1.0 - bool({1, n - 2} & {*some}) for some in sets])

    costs, gains = costs_and_gains(margins, n)
    np.testing.assert_array_equal(costs, np.eye(n)[[1, n - 2]].sum(0))
    np.testing.assert_array_equal(gains, np.zeros(n))


def test_costs_and_gains_of_blocks_are_known_within_their_bound():
    """Positive effects everywhere: each layer is off by at most 2 % of the whole."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        effect = rng.exponential(1.0, 30) ** 4
        for values in costs_and_gains(measuring(effect, []), 30):
            assert np.abs(values - effect).max() <= 0.02 * effect.sum()


def test_orders_alternate_between_items():
    """About half each, by the item's id alone; over both, redundant layers have equal parts."""
    last = [starts_at_last(f"item {i}") for i in range(400)]
    assert 0.4 < np.mean(last) < 0.6
    parts = [layer_parts(redundant((4, 20), []), 30, order) for order in (False, True)]
    np.testing.assert_allclose(np.mean(parts, 0), np.eye(30)[[4, 20]].sum(0) / 2)
