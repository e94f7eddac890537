"""Intervals of means and rates over clusters: against published examples, definitions and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from scipy.stats import t as student

from mata_interp.errors import ArgumentError
from mata_interp.statistics import (
    clustered_interval,
    paired_effect,
    proportion,
    ratio_interval,
    text_dominance,
    text_prior,
    wilson_interval,
)
from mata_interp.statistics.intervals import effective_fraction, ratio_score

from .test_units import bell_and_mccaffrey

counts = st.integers(0, 60)
levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])


# ----------------------------------------------------------------------------------------- ratio of two rates
@pytest.mark.parametrize(
    ("table", "published", "digits"),
    [
        pytest.param((1, 1, 7), (0.065, 0.907), 3, id="Fagerland et al. 2014, airways"),
        pytest.param((59, 6, 16), (0.7476, 0.9876), 4, id="Fagerland et al. 2017, response"),
    ],
)
def test_score_interval_of_a_ratio_published(table, published, digits):
    """Tang's asymptotic score interval; the second as the tests of the R package contingencytables quote."""
    assert tuple(round(float(end), digits) for end in ratio_interval(*table)) == published


@given(counts, counts, st.integers(1, 60), st.integers(0, 60), st.floats(0.05, 20))
def test_the_score_of_a_ratio_is_the_constrained_likelihood_score(both, first, second, rest, ratio):
    """The closed form agrees with maximising the likelihood under the hypothesis numerically."""
    n, union = both + first + second + rest, (both + first + second)
    share = union / n  # of items of which either is true: its likelihood does not depend on the ratio

    def cells(v: float) -> tuple[float, float, float]:
        """Chances of second alone, first alone, both."""
        return share * v, share * (1 - (1 - v) / ratio), share * (1 - v * (1 + ratio)) / ratio

    def minus_loglik(v: float) -> float:
        pairs = zip((second, first, both), cells(v), strict=True)
        return -sum(count * math.log(max(chance, 1e-300)) for count, chance in pairs if count)

    bounds = max(0.0, 1 - ratio), 1 / (1 + ratio)
    v = minimize_scalar(minus_loglik, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    alone, other, _ = cells(v)
    variance = n * ratio * (alone + other)
    excess = both + first - ratio * (both + second)
    assert float(ratio_score(both, first, second, np.array(ratio))) == pytest.approx(
        excess / math.sqrt(variance), rel=1e-3, abs=1e-3
    )


@given(counts, counts, counts, levels)
def test_the_interval_of_a_ratio_inverts_its_test(both, first, second, level):
    if both + second == 0:
        return
    low, high = (float(end) for end in ratio_interval(both, first, second, level))
    value, z = (both + first) / (both + second), norm.ppf((1 + level) / 2)
    assert 0 <= low <= value <= high < np.inf
    assert low < high
    for end, sign in ((low, 1), (high, -1)):
        if end > 0:
            assert float(ratio_score(both, first, second, np.array(end))) == pytest.approx(sign * z, rel=1e-6)
    if both + first and low > 0:
        swapped = [float(end) for end in ratio_interval(both, second, first, level)]
        assert (1 / swapped[1], 1 / swapped[0]) == pytest.approx((low, high), rel=1e-6)


def test_many_tables_at_once_are_each_table_alone():
    tables = np.random.default_rng(0).integers(0, 9, (3, 50))
    tables[2] += 1
    low, high = ratio_interval(*tables)
    for n in range(50):
        alone = ratio_interval(*tables[:, n])
        assert (low[n], high[n]) == pytest.approx((float(alone[0]), float(alone[1])), abs=1e-12)


# ------------------------------------------------------------------------------------------ effective numbers
def plain_fraction(residuals: np.ndarray, labels: np.ndarray, level: float) -> float:
    """`effective_fraction` with whole matrices and loops."""
    n, names = len(residuals), np.unique(labels)
    if len(names) == n:
        return 1.0
    if all(abs(residuals[labels == name].sum()) < 1e-9 for name in names):
        return len(names) / n
    error, freedom = bell_and_mccaffrey(residuals, labels)
    inflation = error**2 / (sum(d**2 for d in residuals) / n**2)
    t = student.ppf((1 + level) / 2, freedom)
    return float((norm.ppf((1 + level) / 2) / t) ** 2 / max(inflation, 1.0))


def correlated_answers(seed: int, clusters: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers of two conditions (bool) and labels, items of a cluster alike in three of four cases."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(clusters), rng.integers(1, 7, clusters))
    luck = np.where(rng.random(len(labels)) < 0.75, rng.random(clusters)[labels], rng.random(len(labels)))
    return luck < 0.4, luck + 0.3 * rng.random(len(labels)) < 0.7, labels


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_rates_of_clusters_by_plain_loops(seed, level):
    first, second, labels = correlated_answers(seed)
    p = first.mean()
    fraction = plain_fraction(first - p, labels, level)
    rate = proportion(first, labels, level)
    n = fraction * len(first)
    assert (rate.low, rate.high) == pytest.approx(wilson_interval(p * n, n, level))
    assert rate.method == "Wilson, clustered"

    either = first | second
    ratio = first.sum() / second.sum()
    fraction = plain_fraction((first - ratio * second)[either], labels[either], level)
    table = (first & second).sum(), (first & ~second).sum(), (second & ~first).sum()
    rate = text_prior(first, second, labels, level)
    expected = ratio_interval(*(fraction * count for count in table), level=level)
    assert (rate.value, rate.low, rate.high) == pytest.approx((ratio, *map(float, expected)))


def test_items_that_do_not_count_do_not_matter():
    """Answers that follow neither side, and clusters of such answers alone, leave the interval as it is."""
    first, _, labels = correlated_answers(3)
    alone = text_dominance(first, ~first, labels)
    more = text_dominance(np.r_[first, [0] * 9], np.r_[~first, [0] * 9], [*labels, *[0] * 5, *["new"] * 4])
    assert (more.low, more.high) == pytest.approx((alone.low, alone.high))
    assert more.n == alone.n + 9


def test_many_data_sets_at_once_are_each_alone():
    rng = np.random.default_rng(1)
    sizes = rng.integers(0, 5, (40, 9))
    sizes[:, :2] += 1
    right = rng.binomial(sizes, 0.6)
    right[0] = sizes[0]  # all right: no design effect to estimate
    p = right.sum(1, keepdims=True) / sizes.sum(1, keepdims=True)
    residuals, squares = right - p * sizes, (sizes.sum(1, keepdims=True) * p * (1 - p))[:, 0]
    together = effective_fraction(residuals, sizes, squares, 0.9)
    for n in range(40):
        assert together[n] == pytest.approx(effective_fraction(residuals[n], sizes[n], squares[n], 0.9))


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=1, max_size=30), levels)
def test_rates_have_intervals_that_hold_the_value_and_are_in_range(rows, level):
    """Never empty and never out of range, with 0 and 100 % among the cases."""
    first, second, labels = (list(column) for column in zip(*rows, strict=True))
    several = len(set(labels)) > 1
    rate = proportion(first, labels, level)
    if several:
        assert 0 <= rate.low <= rate.value <= rate.high <= 1
        assert rate.high - rate.low > 0.01
    prior = text_prior(first, second, labels, level)
    if any(second) and len({label for x, y, label in rows if x or y}) > 1:
        assert 0 <= prior.low <= prior.value <= prior.high < np.inf
        assert prior.high - prior.low > 0.01


def test_copies_of_an_item_tell_no_more_than_one():
    """Each of 60 answers five times: the interval is that of 60 items, but for estimating that."""
    once = np.random.default_rng(0).random(60) < 0.4
    alone, copies = proportion(once), proportion(np.repeat(once, 5), np.repeat(np.arange(60), 5))
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.04)


# ------------------------------------------------------------------------------------------- means of columns
def test_means_have_the_interval_of_a_paired_effect():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(25), rng.integers(1, 6, 25))
    values = rng.normal(size=(len(labels), 3)) + rng.normal(size=(25, 3))[labels]
    values[::7, 1] = np.nan
    mean, low, high = clustered_interval(values, labels, 0.9)
    for column in range(3):
        there = ~np.isnan(values[:, column])
        part = values[there, column]
        effect = paired_effect(0 * part, part, "margin", clusters=labels[there], level=0.9)
        expected = effect.difference, effect.low, effect.high
        assert (mean[column], low[column], high[column]) == pytest.approx(expected)


def test_a_missing_value_leaves_out_its_item_in_its_column_only():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(40, 3))
    values[5, 1] = np.nan
    values[:, 2] = np.nan
    mean, low, high = clustered_interval(values, np.arange(40))
    assert mean[1] == pytest.approx(np.delete(values[:, 1], 5).mean())
    whole = clustered_interval(values[:, :1], np.arange(40))
    np.testing.assert_allclose([mean[0], low[0], high[0]], np.ravel(whole), rtol=0, atol=1e-14)
    assert np.isnan([mean[2], low[2], high[2]]).all()


def test_maps_keep_their_shape_and_one_clip_has_no_interval():
    values = np.random.default_rng(0).normal(0, 1, (30, 2, 3))
    mean, low, high = clustered_interval(values, np.arange(30))
    flat = clustered_interval(values.reshape(30, 6), np.arange(30))
    for shaped, plain in zip((mean, low, high), flat, strict=True):
        assert shaped.shape == (2, 3)
        np.testing.assert_array_equal(shaped.ravel(), plain)
    assert ((low < mean) & (mean < high)).all()
    assert np.isnan(clustered_interval(values, ["a"] * 30)[1]).all()
    values[10:, 0, 0] = np.nan  # a column that one clip alone has values of
    assert np.isnan(clustered_interval(values, ["a"] * 10 + ["b"] * 20)[2]).sum() == 1


def test_bounds_cut_the_interval():
    shares = np.array([[0.0], [0.01], [0.2]])
    assert clustered_interval(shares, range(3))[1][0] < 0
    assert clustered_interval(shares, range(3), bounds=(0, 1))[1].tolist() == [0.0]
    constant = clustered_interval(np.ones((3, 1)), range(3))
    assert [float(part[0]) for part in constant] == [1, 1, 1]


def test_labels_and_items_must_match():
    with pytest.raises(ArgumentError, match="2 labels for 3 items"):
        clustered_interval(np.zeros(3), ["a", "b"])
    with pytest.raises(ArgumentError, match="level"):
        clustered_interval(np.zeros(3), range(3), level=95)
