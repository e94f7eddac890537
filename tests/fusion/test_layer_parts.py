"""Parts of layers against Shapley values over two orders, and what is measured of deep models."""

from __future__ import annotations

import numpy as np
import pytest

from mata_interp.fusion.criteria.layer_parts import THOROUGH, layer_parts, layers_alone, starts_at_last


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


@pytest.mark.parametrize("n", [13, 16, 30, 61])
def test_what_layers_do_alone(n):
    """Exact where the part in order is at least 2 % of the effect, at the cost of these layers."""
    effect, sets_measured = np.zeros(n), []
    effect[[1, n - 4, n - 3]] = -0.3, 1.0, 0.4
    parts = layer_parts(measuring(effect, []), n, False)
    np.testing.assert_allclose(layers_alone(measuring(effect, sets_measured), parts), effect, atol=1e-12)
    assert len(sets_measured) == 3 + 1


@pytest.mark.parametrize("n", [13, 30])
@pytest.mark.parametrize("from_last", [False, True])
def test_redundant_layers_do_nothing_alone(n, from_last):
    """Either suffices: each has a part in order, and none has an effect alone."""
    margins = redundant((1, n - 2), [])
    parts = layer_parts(margins, n, from_last)
    assert parts.sum() == pytest.approx(1)
    np.testing.assert_array_equal(layers_alone(margins, parts), np.zeros(n))


def test_orders_alternate_between_items():
    """About half each, by the item's id alone; over both, redundant layers have equal parts."""
    last = [starts_at_last(f"item {i}") for i in range(400)]
    assert 0.4 < np.mean(last) < 0.6
    parts = [layer_parts(redundant((4, 20), []), 30, order) for order in (False, True)]
    np.testing.assert_allclose(np.mean(parts, 0), np.eye(30)[[4, 20]].sum(0) / 2)
