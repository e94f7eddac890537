"""Tests and intervals of the paired 2 x 2 table, against published examples and independent derivations.

Tables are (right both times, fixed, broken, wrong both times); "fixed" is the cell that the difference
counts as positive. The published numbers are those of the papers named, as reproduced by the R packages
ratesci (its tests) and contingencytables (its chapter on paired tables).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, multinomial, norm
from statsmodels.stats.contingency_tables import mcnemar

from mata_interp.errors import ArgumentError
from mata_interp.statistics import mcnemar_exact, mcnemar_mid, tango_interval, wilson_interval
from mata_interp.statistics.proportions import tango_score

counts = st.integers(0, 60)
levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@pytest.mark.parametrize(
    ("table", "level", "published", "digits"),
    [
        pytest.param((4, 9, 3, 16), 0.95, (-0.027, 0.390), 3, id="Tango 1998"),
        pytest.param((43, 0, 1, 0), 0.90, (-0.096, 0.037), 3, id="Tango 1998, contact lenses"),
        pytest.param((53, 16, 8, 9), 0.95, (-0.020, 0.207), 3, id="Agresti & Min 2005"),
        pytest.param((8, 3, 1, 2), 0.95, (-0.1670, 0.4327), 4, id="Tang et al. 2010"),
        pytest.param((1, 1, 7, 12), 0.95, (-0.517, -0.026), 3, id="Fagerland et al. 2014, airways"),
        pytest.param((59, 6, 16, 80), 0.95, (-0.1240, -0.0054), 4, id="Fagerland et al. 2017, response"),
        pytest.param((7, 25, 2, 68), 0.95, (0.139, 0.321), 3, id="Chang et al. 2024"),
    ],
)
def test_tango_published(table, level, published, digits):
    interval = tango_interval(table[1], table[2], sum(table), level)
    assert tuple(round(limit, digits) for limit in interval) == published


@pytest.mark.parametrize(
    ("fixed", "broken", "exact", "mid"), [(1, 7, 0.0703125, 0.0390625), (6, 16, 0.052479, 0.034690)]
)
def test_mcnemar_published(fixed, broken, exact, mid):
    assert mcnemar_exact(fixed, broken) == pytest.approx(exact, abs=5e-7)
    assert mcnemar_mid(fixed, broken) == pytest.approx(mid, abs=5e-7)


@given(counts, counts)
def test_mcnemar_by_definition(fixed, broken):
    changed = fixed + broken
    as_far = [k for k in range(changed + 1) if abs(2 * k - changed) >= abs(fixed - broken)]
    reference = binom.pmf(as_far, changed, 0.5).sum()
    assert mcnemar_exact(fixed, broken) == pytest.approx(reference, abs=1e-12)
    half_observed = binom.pmf(fixed, fixed + broken, 0.5)
    assert mcnemar_mid(fixed, broken) == pytest.approx(
        reference - (fixed != broken) * half_observed, abs=1e-12
    )
    assert mcnemar_exact(broken, fixed) == mcnemar_exact(fixed, broken)


@given(counts, counts, counts, st.floats(-0.99, 0.99))
def test_score_is_the_constrained_likelihood_score(fixed, broken, rest, difference):
    """The closed form agrees with maximising the likelihood under the hypothesis numerically."""
    n = fixed + broken + rest
    assume(n > 0)
    low, high = max(0.0, -difference), (1 - difference) / 2  # where all three chances are positive

    def minus_loglik(q: float) -> float:
        cells = (fixed, q + difference), (broken, q), (rest, 1 - 2 * q - difference)
        return -sum(count * math.log(max(chance, 1e-300)) for count, chance in cells if count)

    q = minimize_scalar(minus_loglik, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = n * (2 * q + difference - difference**2)
    expected = (fixed - broken - n * difference) / math.sqrt(variance)
    assert tango_score(fixed, broken, n, difference) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(counts, counts, counts, levels)
def test_tango_inverts_its_test(fixed, broken, rest, level):
    """At each limit the score test's p-value is exactly 1 - level."""
    n = fixed + broken + rest
    assume(n > 0)
    for limit in tango_interval(fixed, broken, n, level):
        if abs(limit) < 1:
            p = 2 * norm.sf(abs(tango_score(fixed, broken, n, limit)))
            assert p == pytest.approx(1 - level, rel=1e-6)


@given(counts, counts, counts, levels)
def test_tango_leaves_out_zero_when_mcnemar_rejects(fixed, broken, rest, level):
    assume(fixed + broken > 0)
    chi2 = mcnemar([[0, fixed], [broken, 0]], exact=False, correction=False)
    assume(abs(chi2.pvalue - (1 - level)) > 1e-9)
    low, high = tango_interval(fixed, broken, fixed + broken + rest, level)
    assert (low > 0 or high < 0) == (chi2.pvalue < 1 - level)


@given(counts, counts, counts, counts, levels)
def test_intervals_hold_the_estimate_and_turn_with_it(both, fixed, broken, neither, level):
    n = both + fixed + broken + neither
    assume(n > 0)
    estimate = (fixed - broken) / n
    low, high = tango_interval(fixed, broken, n, level)
    swapped = tango_interval(broken, fixed, n, level)
    assert -1 <= low <= estimate + 1e-12
    assert estimate - 1e-12 <= high <= 1
    assert low < high
    assert (-swapped[1], -swapped[0]) == pytest.approx((low, high), abs=1e-12)


@given(counts, st.integers(1, 60), levels)
def test_wilson_is_the_closed_form(count, n, level):
    count = min(count, n)
    z = norm.ppf((1 + level) / 2)
    centre = (count + z * z / 2) / (n + z * z)
    radius = z * math.sqrt(count * (n - count) / n + z * z / 4) / (n + z * z)
    expected = (max(0.0, centre - radius), min(1.0, centre + radius))
    assert wilson_interval(count, n, level) == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_tango_closed_forms_at_the_edges(n):
    z2 = norm.ppf(0.975) ** 2
    assert tango_interval(0, 0, n) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)))
    assert tango_interval(n, 0, n) == pytest.approx(((n - z2) / (n + z2), 1.0))


def test_no_items_leave_everything_open():
    assert tango_interval(0, 0, 0) == (-1, 1)
    assert mcnemar_exact(0, 0) == mcnemar_mid(0, 0) == 1


@pytest.mark.parametrize("arguments", [(-1, 0, 5), (0, -1, 5), (4, 2, 5), (0, 0, -1), (math.nan, 0, 5)])
def test_tango_refuses_counts_that_do_not_fit(arguments):
    with pytest.raises(ArgumentError, match="do not fit together"):
        tango_interval(*arguments)


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, math.nan])
def test_level_is_checked(level):
    with pytest.raises(ArgumentError, match="level"):
        tango_interval(1, 2, 10, level)
    with pytest.raises(ArgumentError, match="level"):
        wilson_interval(1, 2, level)


@pytest.mark.parametrize("chances", [(0.1, 0.1), (0.2, 0.05), (0.3, 0.3), (0.02, 0.02)])
def test_tango_coverage_summed_over_every_table(chances):
    """Not simulated: the chance of every possible table of 40 items whose interval holds the truth."""
    n, covered = 40, 0.0
    truth = chances[0] - chances[1]
    table = multinomial(n, [*chances, 1 - sum(chances)])
    for fixed in range(n + 1):
        for broken in range(n + 1 - fixed):
            low, high = tango_interval(fixed, broken, n)
            if low <= truth <= high:
                covered += table.pmf([fixed, broken, n - fixed - broken])
    assert 0.935 < covered < 0.995


def test_mcnemar_mid_p_keeps_its_level():
    """Over every number of changed items up to 60, half of them fixed: at most 5 % below 0.05 on average."""
    rejected = []
    for changed in range(1, 61):
        p = np.array([mcnemar_mid(k, changed - k) for k in range(changed + 1)])
        exact = np.array([mcnemar_exact(k, changed - k) for k in range(changed + 1)])
        chance = binom.pmf(np.arange(changed + 1), changed, 0.5)
        rejected.append(chance[p <= 0.05].sum())
        assert chance[exact <= 0.05].sum() <= 0.05
    assert 0.03 < np.mean(rejected) <= 0.05


@pytest.mark.parametrize(
    ("count", "n", "published"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_published(count, n, published):
    """Newcombe (1998, Stat Med 17:857), score method without continuity correction, to the printed digits.

    The digits are those that the tests of the R package propint quote from the paper.
    """
    assert tuple(round(limit, 4) for limit in wilson_interval(count, n)) == published
