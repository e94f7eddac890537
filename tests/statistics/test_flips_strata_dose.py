"""Flips of single answers, strata, and dose-response, against plain references."""

from __future__ import annotations

from math import inf, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mata_interp.errors import ArgumentError
from mata_interp.statistics import (
    count_flips,
    odds_ratio,
    paired_effect,
    rank_association,
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
    found = stratified_effect(before, after, task)
    assert found.difference == pytest.approx(paired_effect(before, after).difference)
    assert sum(effect.n for effect in found.strata.values()) == 300
    assert found.low < found.difference < found.high


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
