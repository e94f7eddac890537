"""Holm's and Benjamini-Hochberg's adjustments against their formulas, statsmodels, and their properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from mata_interp.errors import ArgumentError
from mata_interp.statistics import benjamini_hochberg, holm

families = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def plain_holm(pvalues):
    """The k-th smallest of m p-values times m - k + 1, at most 1 and never below the one before."""
    adjusted, largest = [0.0] * len(pvalues), 0.0
    for rank, index in enumerate(sorted(range(len(pvalues)), key=lambda i: pvalues[i])):
        largest = max(largest, (len(pvalues) - rank) * pvalues[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


@given(families)
def test_holm_equals_the_plain_formula(pvalues):
    np.testing.assert_allclose(holm(pvalues), plain_holm(pvalues), rtol=0, atol=1e-12)


@given(families, st.randoms())
def test_holm_is_monotone_and_follows_the_order_given(pvalues, random):
    adjusted = holm(pvalues)
    assert (adjusted >= pvalues).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(pvalues)]) >= 0).all()
    order = list(range(len(pvalues)))
    random.shuffle(order)
    np.testing.assert_array_equal(holm([pvalues[i] for i in order]), adjusted[order])


@pytest.mark.parametrize("seed", range(4))
def test_both_by_statsmodels(seed):
    rng = np.random.default_rng(seed)
    pvalues = np.round(rng.random(rng.integers(1, 30)) ** 2, 2)  # with ties
    np.testing.assert_allclose(holm(pvalues), multipletests(pvalues, method="holm")[1], atol=1e-12)
    np.testing.assert_allclose(
        benjamini_hochberg(pvalues), multipletests(pvalues, method="fdr_bh")[1], atol=1e-12
    )


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04]), [0.06, 0.03, 0.06])
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []


@pytest.mark.parametrize("bad", [[0.1, np.nan], [-0.1], [1.1], [[0.1, 0.2]]])
def test_holm_refuses_what_is_no_pvalue(bad):
    with pytest.raises(ArgumentError, match="p-values"):
        holm(bad)
