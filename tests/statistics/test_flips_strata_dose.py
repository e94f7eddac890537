"""Flips of single answers, strata, and dose-response, against plain references."""

from __future__ import annotations

from itertools import permutations, product
from math import inf, isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr, ttest_ind
from statsmodels.stats.oneway import anova_oneway

from mata_interp.errors import ArgumentError
from mata_interp.statistics import (
    count_flips,
    dose,
    odds_ratio,
    paired_effect,
    rank_association,
    selected_trend,
    standardised_change,
    stratified_effect,
    trend_test,
    wilcoxon_p,
)


@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 3), max_size=30))
def test_every_item_is_counted_once(rows):
    before, after, right = ([row[k] for row in rows] for k in range(3))
    flips = count_flips(before, after, right)
    assert flips.fixed + flips.broken + flips.churned + flips.unchanged == flips.n == len(rows)
    assert flips.unchanged == sum(x == y for x, y, _ in rows)
    effect = paired_effect([x == r for x, _, r in rows] or [], [y == r for _, y, r in rows] or [], "binary")
    assert (effect.fixed, effect.broken) == (flips.fixed, flips.broken)


def test_odds_ratios():
    """Symmetric: the ratio of broken to fixed is the inverse, with inverse limits."""
    ratio, low, high = odds_ratio(7, 1)
    inverse = odds_ratio(1, 7)
    assert (1 / inverse[0], 1 / inverse[2], 1 / inverse[1]) == pytest.approx((ratio, low, high))
    assert odds_ratio(3, 0)[0] == odds_ratio(3, 0)[2] == inf
    assert isnan(odds_ratio(0, 0)[0])
    with pytest.raises(ArgumentError):
        odds_ratio(-1, 2)


def test_margins():
    before, after = np.zeros(20), np.linspace(-0.5, 1.5, 20)
    assert standardised_change(before, after) == pytest.approx(after.mean() / after.std(ddof=1))
    assert 0 < wilcoxon_p(before, after) < 0.05
    assert isnan(wilcoxon_p(before, before))
    assert isnan(standardised_change(before, before))


def test_strata_combine_to_the_whole():
    rng = np.random.default_rng(0)
    task = rng.choice(["speech", "music", "sound"], 300)
    before = rng.integers(0, 2, 300)
    after = np.where(rng.random(300) < 0.2, 1 - before, before)
    result = stratified_effect(before, after, task)
    assert result.difference == pytest.approx(paired_effect(before, after).difference)
    assert sum(effect.n for effect in result.strata.values()) == 300
    assert result.low < result.difference < result.high


def test_heterogeneity():
    """Q is chi-squared where strata agree (of 100 data sets, 13 may reject: 99.9 %), large where not."""
    task = np.repeat(["a", "b", "c", "d"], 60)

    def q_p(seed: int, fixed: np.ndarray) -> float:
        rng = np.random.default_rng(seed)
        before = rng.integers(0, 2, 240)
        after = np.where(rng.random(240) < fixed, 1, np.where(rng.random(240) < 0.1, 0, before))
        return stratified_effect(before, after, task).q_p

    alike = [q_p(seed, np.full(240, 0.2)) for seed in range(100)]
    assert np.mean(np.array(alike) < 0.05) < 0.13
    assert q_p(0, np.where(task == "a", 0.9, 0.05)) < 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_heterogeneity_is_welchs_test(seed):
    """statsmodels' analysis of variance with unequal variances, on the changes of four strata."""
    rng = np.random.default_rng(seed)
    strata = np.repeat(list("abcd"), [12, 20, 9, 30])
    change = rng.normal(0.1 * seed, 1 + rng.random(4)[np.searchsorted(list("abcd"), strata)])
    result = stratified_effect(0 * change, change, strata, "margin")
    reference: Any = anova_oneway([change[strata == name] for name in "abcd"], use_var="unequal")
    assert result.q_p == pytest.approx(reference.pvalue)


def test_the_combined_interval_is_welchs_of_the_sum():
    """Of two strata of one size: Welch's t interval of the sum of two means, halved."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(0.3, 1.0, 8), rng.normal(0.1, 3.0, 8)
    result = stratified_effect([0] * 16, np.r_[first, second], ["a"] * 8 + ["b"] * 8, "margin")
    reference = ttest_ind(first, -second, equal_var=False).confidence_interval()
    assert (result.low, result.high) == pytest.approx((reference.low / 2, reference.high / 2))


def test_a_stratum_without_a_spread_leaves_an_interval():
    before = np.zeros(40)
    after = np.r_[np.zeros(20), [1, 1, 1, 1, 1] + [0] * 15]
    result = stratified_effect(before, after, ["same"] * 20 + ["moving"] * 20)
    whole = paired_effect(before, after)
    assert (result.low, result.high) == (whole.low, whole.high)
    assert isnan(result.q_p)  # one stratum alone has a standard error


def test_strata_chosen_on_tested_clips_have_no_p_values():
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, (2, 60))
    clips, task = [str(n // 2) for n in range(60)], ["a", "b"] * 30
    tested = stratified_effect(before, after, task, clusters=clips, chosen_on=["no such clip"])
    refused = stratified_effect(before, after, task, clusters=clips, chosen_on=["4"])
    assert np.isfinite([tested.q_p, *(effect.p for effect in tested.strata.values())]).all()
    assert np.isnan([refused.q_p, *(effect.p for effect in refused.strata.values())]).all()
    assert (refused.low, refused.high) == (tested.low, tested.high)


def test_trend():
    rng = np.random.default_rng(0)
    rising = rng.normal(0, 1, (40, 5)) + 0.3 * np.arange(5)
    slope, p = trend_test(rising)
    fits = [np.polyfit(np.arange(5), row, 1)[0] for row in rising]
    assert slope == pytest.approx(np.mean(fits))
    assert p < 0.01
    assert trend_test(rising[:, ::-1])[0] == pytest.approx(-slope)
    false = sum(trend_test(np.random.default_rng(s).normal(0, 1, (14, 4)))[1] < 0.05 for s in range(200))
    assert false <= 21
    with pytest.raises(ArgumentError):
        trend_test(np.zeros((3, 1)))


def test_association():
    rng = np.random.default_rng(0)
    dose = rng.normal(size=50)
    gain = dose**3 + rng.normal(size=50)
    plain = rank_association(dose, gain)
    assert plain.rho == pytest.approx(spearmanr(dose, gain).statistic)
    assert plain.low < plain.rho < plain.high
    assert plain.p < 0.01


def test_the_interval_of_an_association_by_plain_loops():
    """The resampled correlations, from ranks of each resample's items with `rankdata`, with equal values."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(9), rng.integers(1, 5, 9))
    n = len(codes)
    columns = np.array([rng.integers(0, 6, n), rng.normal(size=n), rng.integers(0, 3, n)])
    counts = rng.multinomial(9, [1 / 9] * 9, 40)
    fast = dose._resampled_rho(columns.astype(float), counts[:, codes])
    for row, rho in zip(counts, fast, strict=True):
        rows = np.concatenate([np.flatnonzero(codes == g) for g in np.repeat(np.arange(9), row)])
        x, y, covariate = (rankdata(column[rows]) for column in columns)
        design = np.c_[np.ones(len(rows)), covariate]
        left = [side - design @ np.linalg.lstsq(design, side, rcond=None)[0] for side in (x, y)]
        assert rho == pytest.approx(np.corrcoef(left)[0, 1], abs=1e-9)


def test_the_permuted_range_and_the_p_value_agree():
    rng = np.random.default_rng(1)
    for slope in (0.0, 0.25, 0.4):
        x = rng.normal(size=60)
        result = rank_association(x, slope * x + rng.normal(size=60))
        assert result.permuted_low < 0 < result.permuted_high
        outside = not result.permuted_low <= result.rho <= result.permuted_high
        assert outside == (result.p < 0.05) or abs(result.p - 0.05) < 0.01
    with pytest.raises(ArgumentError, match="clusters"):
        rank_association(x, x, clusters=["a"])


def test_permuted_doses_are_fitted_again():
    """Six items: all 720 permutations of the residual dose, each freed of the covariate by least squares."""
    dose_of, gain, covariate = np.random.default_rng(3).normal(size=(3, 6))
    ranks = [rankdata(column) for column in (dose_of, gain, covariate)]
    design = np.c_[np.ones(6), ranks[2]]

    def left(side: np.ndarray) -> np.ndarray:
        return side - design @ np.linalg.lstsq(design, side, rcond=None)[0]

    x, y = left(ranks[0]), left(ranks[1])
    rho = np.corrcoef(x, y)[0, 1]
    permuted = [np.corrcoef(left(x[list(order)]), y)[0, 1] for order in permutations(range(6))]
    result = rank_association(dose_of, gain, [covariate], draws=20_000)
    assert result.rho == pytest.approx(rho)
    assert result.p == pytest.approx(np.mean(np.abs(permuted) >= abs(rho) - 1e-9), abs=0.012)
    assert result.permuted_high == pytest.approx(np.quantile(permuted, 0.975), abs=0.03)


def test_a_shared_cause_is_no_association():
    rng = np.random.default_rng(0)
    cause = rng.normal(size=200)
    dose, gain = cause + 0.5 * rng.normal(size=200), cause + 0.5 * rng.normal(size=200)
    assert rank_association(dose, gain).rho > 0.5
    left = rank_association(dose, gain, [cause])
    assert abs(left.rho) < 0.2
    assert left.p > 0.01


@pytest.mark.parametrize("unequal", [False, True])
def test_clusters_are_permuted_as_a_whole(unequal):
    """Doses and gains that only vary between clips: 5 % of data sets are significant, not 50 %."""
    false = 0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        codes = np.repeat(np.arange(12), rng.integers(2, 6, 12) if unequal else 4)
        dose, gain = rng.normal(size=12)[codes], rng.normal(size=12)[codes]
        noise = 0.01 * rng.normal(size=(2, len(codes)))
        false += rank_association(dose + noise[0], gain + noise[1], clusters=codes, seed=seed).p < 0.05
    assert false <= 4


def test_odds_ratio_published():
    """Fagerland, Lydersen and Laake's complete response (6 and 16 flips), from their package's tests."""
    assert tuple(round(value, 4) for value in odds_ratio(6, 16)) == (0.3750, 0.1514, 0.9287)


# --------------------------------------------------------------------------------- the trend of a chosen edit
def test_a_selected_trend_by_plain_loops():
    """Five clusters: all 32 patterns of signs, the edit chosen again under each."""
    rng = np.random.default_rng(0)
    labels = np.repeat(list("abcde"), [2, 1, 3, 1, 2])
    changes = rng.normal(0.2, 1.0, (9, 4, 3))

    def slope(values: np.ndarray) -> tuple[int, float]:
        chosen = int(values.mean(0).max(1).argmax())
        curve = np.c_[np.zeros(9), values[:, chosen]]
        return chosen, float(np.mean([np.polyfit(np.arange(4), row, 1)[0] for row in curve]))

    place = np.searchsorted(list("abcde"), labels)
    patterns = (np.array(signs)[place][:, None, None] for signs in product([1, -1], repeat=5))
    slopes = [slope(changes * signs)[1] for signs in patterns]
    chosen, observed = slope(changes)
    result = selected_trend(changes, labels)
    assert (result.chosen, result.slope) == (chosen, pytest.approx(observed))
    assert result.p == pytest.approx(np.mean(np.abs(slopes) >= abs(observed) - 1e-12))


def test_a_selected_trend_keeps_its_level_and_the_plain_test_does_not():
    """150 data sets without an effect, the best of 20 edits each: 5 % may be significant (99.9 %: 17)."""
    rejected = np.zeros(2)
    for seed in range(150):
        changes = np.random.default_rng(seed).normal(size=(30, 20, 3))
        result = selected_trend(changes, draws=199, seed=seed)
        curve = np.c_[np.zeros(30), changes[:, result.chosen]]
        rejected += [result.p <= 0.05, trend_test(curve)[1] <= 0.05]
    assert rejected[0] <= 17
    assert rejected[1] > 25


@pytest.mark.parametrize("shape", [(3, 2), (0, 2, 2), (3, 2, 2)])
def test_a_selected_trend_needs_finite_changes(shape):
    with pytest.raises(ArgumentError):
        selected_trend(np.full(shape, np.nan))
