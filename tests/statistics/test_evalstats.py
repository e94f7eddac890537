"""Tests and intervals of answers and margins are those of evalstats, which others wrote."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.statistics import wilson_interval
from tests.support.analyses import import_analysis

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from evalstats.core.paired import pairwise_differences
    from evalstats.core.resampling import (
        bca_interval_1d,
        bootstrap_means_1d,
        bootstrap_t_ci_1d,
        smooth_bootstrap_means_1d,
        wilson_ci,
    )

TABLES = [(17, 0, 100), (9, 4, 40), (3, 3, 25), (30, 55, 400), (1, 0, 12)]  # fixed, broken, items
SHAPES = {
    "normal": lambda rng, n: rng.normal(0.3, 1, n),
    "skewed": lambda rng, n: rng.exponential(1, n) - 0.8,
    "heavy": lambda rng, n: rng.standard_t(3, n) + 0.2,
}


def theirs(before, after, method: str, **options):
    """evalstats on two conditions, ``after`` first, so that its change is ``after - before``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rng = np.random.default_rng(0)
        return pairwise_differences(
            np.array([after, before], dtype=float), 0, 1, method=method, rng=rng, **options
        )


@pytest.mark.parametrize(("fixed", "broken", "n"), TABLES)
def test_answers(fixed, broken, n):
    before, after = np.zeros(n), np.zeros(n)
    after[:fixed], before[fixed : fixed + broken] = 1, 1
    right = slice(fixed + broken, fixed + broken + (n - fixed - broken) // 2)
    before[right] = after[right] = 1
    effect, reference = mi.paired_effect(before, after), theirs(before, after, "tango")
    assert effect.difference == pytest.approx(reference.point_diff, abs=1e-12)
    assert (effect.low, effect.high) == pytest.approx((reference.ci_low, reference.ci_high), abs=1e-6)
    assert effect.p == pytest.approx(reference.p_value, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [12, 60])
def test_margins(shape, n):
    rng = np.random.default_rng(n)
    before = rng.normal(size=n)
    after = before + SHAPES[shape](rng, n)
    effect = mi.paired_effect(before, after, kind="margin")
    reference = theirs(before, after, "t_interval")
    assert effect.difference == pytest.approx(reference.point_diff, abs=1e-12)
    assert (effect.low, effect.high) == pytest.approx((reference.ci_low, reference.ci_high), abs=1e-9)
    flips = theirs(before, after, "permutation", n_bootstrap=50_000)
    error = 4 * np.sqrt(max(effect.p, 1e-3) / 50_000)  # four standard errors of their draws, and of ours
    assert effect.p == pytest.approx(flips.p_value, abs=2 * error)


@pytest.mark.parametrize(("count", "n"), [(0, 10), (7, 20), (99, 100), (521, 1000)])
def test_rates(count, n):
    assert wilson_interval(count, n) == pytest.approx(wilson_ci(count, n, 0.05), abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_bootstraps_of_the_calibration(shape):
    """The intervals that `analyses/calibration.py` compares, within the error of 20,000 draws.

    The widths of the noise of smoothed bootstraps differ (Silverman's and Scott's), by 1 % of an interval.
    """
    intervals = import_analysis("support.calibration.bootstraps").bootstrap_intervals
    values, draws = SHAPES[shape](np.random.default_rng(3), 40), 20_000
    mine = intervals(values[None], np.ones(40), draws, np.random.default_rng(1))
    mean, rng = float(values.mean()), np.random.default_rng(2)
    means = bootstrap_means_1d(values, draws, rng)
    smoothed = smooth_bootstrap_means_1d(values, draws, rng)
    expected = {
        "percentile": tuple(np.percentile(means, [2.5, 97.5])),
        "BCa": bca_interval_1d(values, mean, means, 0.05),
        "bootstrap-t": bootstrap_t_ci_1d(values, mean, draws, 0.05, rng),
        "smoothed": tuple(np.percentile(smoothed, [2.5, 97.5])),
    }
    for name, (low, high) in expected.items():
        ends = [float(end[0]) for end in mine[name]]
        assert ends == pytest.approx([low, high], abs=0.04 * (high - low)), name
    assert len({round(low, 3) for low, _ in expected.values()}) == 4  # four methods, four intervals
