"""Power of paired comparisons against simulation, and the numbers it gives back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from mata_interp.errors import ArgumentError
from mata_interp.statistics import (
    detectable_difference,
    detectable_margin,
    items_needed,
    mcnemar_mid,
    paired_effect,
    paired_power,
)


@pytest.mark.parametrize(
    ("n", "discordance", "difference"), [(13, 0.4, 0.2), (60, 0.3, -0.15), (70, 0.1, 0.05)]
)
def test_power_is_the_sum_over_all_tables(n, discordance, difference):
    fixed_chance, power = (discordance + difference) / 2, 0.0
    for changed in range(n + 1):
        for fixed in range(changed + 1):
            if mcnemar_mid(fixed, changed - fixed) <= 0.05:
                share = binom.pmf(fixed, changed, fixed_chance / discordance)
                power += binom.pmf(changed, n, discordance) * share
    assert paired_power(n, discordance, difference) == pytest.approx(power, abs=1e-9)


def test_power_without_a_difference_is_the_size_of_the_test():
    assert 0.02 < paired_power(400, 0.1, 0.0) <= 0.055


def test_thirteen_items_detect_little():
    assert detectable_difference(13, 0.3) > 0.25 or np.isnan(detectable_difference(13, 0.3))


@pytest.mark.parametrize("discordance", [0.1, 0.3])
def test_the_three_agree(discordance):
    difference = discordance / 2
    n = items_needed(difference, discordance)
    assert paired_power(n, discordance, difference) >= 0.8 > paired_power(n - 1, discordance, difference)
    assert detectable_difference(n, discordance) == pytest.approx(difference, abs=0.002)
    assert items_needed(difference, discordance, design_effect=3.0) == pytest.approx(3 * n, abs=2)


@pytest.mark.acceptance
def test_margins_by_simulation():
    change = detectable_margin(100, sd=2.0)
    rng = np.random.default_rng(0)
    detections = [
        paired_effect(np.zeros(100), rng.normal(change, 2.0, 100), "margin").low > 0 for _ in range(120)
    ]
    assert 0.68 < np.mean(detections) < 0.92


WRONG = [(0.0, 0.0), (0.1, 0.2), (1.5, 0.1)]


@pytest.mark.parametrize(("discordance", "difference"), WRONG)
def test_bad_arguments(discordance, difference):
    with pytest.raises(ArgumentError):
        paired_power(10, discordance, difference)
    with pytest.raises(ArgumentError):
        items_needed(0.0, 0.1)
