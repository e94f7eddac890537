"""Sign-flip tests and bootstrap against enumeration and scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from mata_interp.statistics import mcnemar_exact
from mata_interp.statistics.resampling import bootstrap_interval, sign_flip, sign_flip_counts
from mata_interp.statistics.units import Units


def enumerated(sums: np.ndarray) -> float:
    """The definition: the share of all sign patterns at least as far from zero as the one observed."""
    totals = [abs(np.dot(signs, sums)) for signs in product((-1, 1), repeat=len(sums))]
    return float(np.mean(np.array(totals) >= abs(sums.sum()) - 1e-9))


@given(st.lists(st.integers(-5, 5), max_size=10))
def test_counts_by_enumeration(sums):
    sums = np.array(sums, dtype=float)
    expected = enumerated(sums)
    assert sign_flip_counts(sums) == pytest.approx(expected, abs=1e-12)
    assert sign_flip(sums, seed=0) == (pytest.approx(expected, abs=1e-12), True)


@given(st.lists(st.integers(-(10**9), 10**9).map(lambda i: i / 1e6), max_size=9))
def test_values_by_enumeration(values):
    values = np.array(values)
    assert sign_flip(values, seed=0)[0] == pytest.approx(enumerated(values), abs=1e-12)


def test_values_by_scipy():
    values = np.random.default_rng(3).normal(0.5, 1, 12)
    reference = permutation_test(
        (values, -values), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(values, seed=0)[0] == pytest.approx(reference.pvalue)


@given(st.integers(0, 200), st.integers(0, 200))
def test_single_answers_give_mcnemar(fixed, broken):
    sums = np.array([1.0] * fixed + [-1.0] * broken + [0.0] * 7)
    assert sign_flip_counts(sums) == pytest.approx(mcnemar_exact(fixed, broken), rel=1e-9)


def test_drawn_patterns_agree_with_all_patterns():
    """Whole numbers as values: too many units to enumerate, but the exact answer is known."""
    sums = np.random.default_rng(0).integers(-3, 6, 40).astype(float)
    exact = sign_flip_counts(sums)
    p, is_exact = sign_flip(sums, seed=1)
    assert not is_exact
    assert 0.001 < exact < 0.5
    assert abs(p - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000)
    assert sign_flip(sums, seed=1) == (p, False)
    assert sign_flip(sums, seed=2)[0] != p


def test_drawn_pvalue_is_never_zero():
    assert sign_flip(np.full(100, 1.5), seed=0)[0] == pytest.approx(1 / 20_001)


def test_bootstrap_t_by_definition():
    """Resamples of our own, with Student's standard error of each."""
    values = np.random.default_rng(0).exponential(size=60)
    low, high = bootstrap_interval(Units.gather(values, None), 0.95, seed=0)
    again = values[np.random.default_rng(99).integers(0, 60, (40_000, 60))]
    statistic = (again.mean(1) - values.mean()) / (again.std(1, ddof=1) / np.sqrt(60))
    radius = np.quantile(np.abs(statistic), 0.95) * values.std(ddof=1) / np.sqrt(60)
    assert (low, high) == pytest.approx((values.mean() - radius, values.mean() + radius), abs=0.02)
    assert radius > 2.001 * values.std(ddof=1) / np.sqrt(60)  # wider than Student's on skewed data


def test_bootstrap_t_survives_tiny_numbers():
    values = np.random.default_rng(0).normal(1, 1, 30)
    low, high = bootstrap_interval(Units.gather(values, None), 0.95, seed=0)
    tiny = bootstrap_interval(Units.gather(values * 1e-120, None), 0.95, seed=0)
    assert tiny == pytest.approx((low * 1e-120, high * 1e-120), rel=1e-6)
