"""Step-down max-T against plain loops, and its family-wise error rate."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mata_interp.errors import ArgumentError
from mata_interp.statistics import holm, max_t, mcnemar_exact, romano_wolf
from mata_interp.statistics.resampling import sign_flip


def studentised(items: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """|mean| / CR1 standard error of each column, by loops."""
    result = []
    for column in items.T:
        mean = column.mean()
        sums = [(column[codes == g] - mean).sum() for g in np.unique(codes)]
        count = len(sums)
        error = np.sqrt(count / (count - 1) * sum(s * s for s in sums)) / len(column)
        result.append(0.0 if abs(mean) < 1e-15 else np.inf if error < 1e-9 else abs(mean) / error)
    return np.array(result)


def reference(items: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Westfall and Young's step-down over all sign patterns, one hypothesis after the other."""
    observed = studentised(items, codes)
    patterns = [
        studentised(items * np.array(signs)[codes][:, None], codes)
        for signs in product([1.0, -1.0], repeat=codes.max() + 1)
    ]
    order = np.argsort(-observed, kind="stable")
    adjusted, largest_so_far = np.empty(len(observed)), 0.0
    for place, column in enumerate(order):
        rest = order[place:]
        p = np.mean([pattern[rest].max() >= observed[column] * (1 - 1e-9) for pattern in patterns])
        largest_so_far = max(largest_so_far, p)
        adjusted[column] = largest_so_far
    return adjusted


@given(st.integers(0, 2**31), st.integers(3, 7), st.integers(1, 4), st.booleans())
def test_against_loops(seed, clusters, columns, whole_numbers):
    rng = np.random.default_rng(seed)
    codes = np.sort(np.r_[np.arange(clusters), rng.integers(0, clusters, 4)])
    items = rng.normal(0.5, 1.0, (len(codes), columns))
    items = np.rint(items) if whole_numbers else items
    np.testing.assert_allclose(max_t(items, codes).p, reference(items, codes), atol=1e-12)


def test_one_comparison_of_single_items_is_the_sign_flip_test():
    """A mean and its studentised form order the sign patterns alike."""
    changes = np.random.default_rng(0).normal(0.4, 1.0, 11)
    p, exact = sign_flip(changes, 0)
    assert exact
    assert max_t(changes[:, None]).p[0] == pytest.approx(p)
    flips = np.array([1.0] * 7 + [-1.0] + [0.0] * 4)
    assert max_t(flips[:, None]).p[0] == pytest.approx(mcnemar_exact(7, 1))


def test_correlated_columns_cost_less_than_with_holm():
    rng = np.random.default_rng(0)
    shared = rng.normal(0.35, 1.0, (60, 1))
    changes = shared + rng.normal(0, 0.2, (60, 40))
    single = [max_t(changes[:, [k]], seed=1).p[0] for k in range(40)]
    assert max_t(changes, seed=1).p.max() < holm(single).min()


@pytest.mark.parametrize("test", [max_t, romano_wolf])
def test_the_family_wise_error_rate(test):
    """Of 200 data sets without an effect (12 correlated columns, clusters of 1 to 3), 21 may be rejected
    (99.9 %); without a correction it would be some 80."""
    false = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        codes = np.repeat(np.arange(30), rng.integers(1, 4, 30))
        by_clip = rng.normal(0, 1, (30, 1))[codes]
        changes = by_clip + rng.normal(0, 1, (len(codes), 12))
        false += bool((test(changes, codes, draws=299, seed=seed).p <= 0.05).any())
    assert false <= 21


def test_a_real_change_is_found_and_the_others_are_not():
    rng = np.random.default_rng(0)
    changes = rng.normal(0, 1, (80, 10))
    changes[:, 4] += 0.6
    for result in (max_t(changes), romano_wolf(changes)):
        assert np.flatnonzero(result.p < 0.05).tolist() == [4]
        assert result.change[4] == pytest.approx(changes[:, 4].mean())


def test_nothing_changed():
    result = max_t(np.zeros((20, 3)))
    assert result.p.tolist() == [1.0, 1.0, 1.0]
    assert result.statistic.tolist() == [0.0, 0.0, 0.0]


WRONG = [
    (np.zeros(4), None),
    (np.zeros((0, 2)), None),
    (np.full((3, 1), np.inf), None),
    (np.zeros((3, 1)), "ab"),
]


@pytest.mark.parametrize(("changes", "clusters"), WRONG)
def test_bad_arguments(changes, clusters):
    with pytest.raises(ArgumentError):
        max_t(changes, clusters)
