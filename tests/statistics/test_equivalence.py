"""Claims of no harm: two one-sided tests, their interval, and the number of items they need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mata_interp.errors import ArgumentError
from mata_interp.statistics import items_for_margin, no_harm, tango_interval
from mata_interp.statistics.choices import REFUSED


def flips(n: int, fixed: int, broken: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.r_[np.zeros(fixed), np.ones(broken), np.ones(n - fixed - broken)]
    after = np.r_[np.ones(fixed), np.zeros(broken), np.ones(n - fixed - broken)]
    return before, after


@given(st.integers(20, 400), st.data(), st.sampled_from([0.02, 0.05, 0.1]))
def test_tests_and_interval_agree(n, data, margin):
    """Equivalence at 5 % is the 90 % interval inside the margin; non-inferiority its lower end above."""
    fixed = data.draw(st.integers(0, n // 4))
    broken = data.draw(st.integers(0, n // 4))
    result = no_harm(*flips(n, fixed, broken), margin)
    low, high = tango_interval(fixed, broken, n, 0.90)
    assert (result.low, result.high) == pytest.approx((low, high))
    if min(abs(low + margin), abs(high - margin)) > 1e-9:
        assert result.not_inferior == (low > -margin)
        assert result.equivalent == (low > -margin and high < margin)


@settings(max_examples=15)  # each makes a BCa bootstrap
@given(st.integers(0, 2**31), st.booleans())
def test_margins_with_clusters(seed, clustered):
    rng = np.random.default_rng(seed)
    before = rng.normal(0, 1, 60)
    after = before + rng.normal(0.02, 0.3, 60)
    clusters = np.arange(60) // 3 if clustered else None
    result = no_harm(before, after, 0.15, "margin", clusters)
    assert result.not_inferior == (result.low > -0.15)
    assert result.equivalent == (result.low > -0.15 and result.high < 0.15)


def test_harm_is_never_called_equivalent():
    """At the margin itself, 5 % of 400 data sets may pass; 36 is the 99.9 % bound."""
    passed = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        changes = rng.choice([1.0, -1.0, 0.0], 300, p=[0.025, 0.075, 0.9])  # -5 points in truth
        before = np.where(changes > 0, 0.0, 1.0)
        passed += no_harm(before, before + changes, 0.05).not_inferior
    assert passed <= 36


def test_the_number_of_items_gives_the_power():
    n = items_for_margin(0.1, 0.05, power=0.8)
    shown = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        changes = rng.choice([1.0, -1.0, 0.0], n, p=[0.05, 0.05, 0.9])
        before = np.where(changes > 0, 0.0, 1.0)
        shown += no_harm(before, before + changes, 0.05).equivalent
    assert 0.72 < shown / 300 < 0.88
    assert items_for_margin(0.1, 0.05, design_effect=2.0) == pytest.approx(2 * n, abs=1)


def test_without_a_spread_nothing_is_claimed():
    result = no_harm([1.0] * 6, [1.0] * 6, 0.1, "margin")
    assert not result.equivalent
    assert not result.not_inferior
    assert result.to_dict()["p_inferior"] is None


@pytest.mark.parametrize("margin", [0.0, -0.05, float("nan")])
def test_the_margin_is_above_zero(margin):
    with pytest.raises(ArgumentError):
        no_harm([0, 1], [1, 1], margin)


def test_what_was_chosen_on_tested_clips_has_no_claim():
    before, after = flips(200, 2, 2)
    clips = [str(n) for n in range(200)]
    assert no_harm(before, after, 0.05, clusters=clips, chosen_on=["elsewhere"]).equivalent
    refused = no_harm(before, after, 0.05, clusters=clips, chosen_on=["3"])
    assert np.isnan([refused.p_inferior, refused.p_superior, refused.p_equivalence]).all()
    assert not refused.equivalent
    assert not refused.not_inferior
    assert refused.method == REFUSED
    with pytest.raises(ArgumentError, match="clusters"):
        no_harm(before, after, 0.05, chosen_on=["3"])
