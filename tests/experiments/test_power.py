"""What a comparison could have detected, and what a planned study can."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mata_interp.experiments.chance import mean_chance
from mata_interp.experiments.power import detectable_change, plan_power
from mata_interp.statistics import detectable_difference, detectable_margin, items_needed, paired_power


def changed(n: int, fixed: int, broken: int) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.zeros(n), np.zeros(n)
    after[:fixed] = 1
    before[fixed : fixed + broken] = 1
    return before, after


def test_independent_items_detect_what_their_discordance_allows():
    before, after = changed(200, 20, 10)
    change = detectable_change(before, after, "binary", list(range(200)))
    assert change == detectable_difference(200, 0.15)
    assert paired_power(200, 0.15, change) == pytest.approx(0.8, abs=0.01)


def test_items_that_change_together_count_as_fewer():
    before, after = changed(200, 60, 40)
    alone = detectable_change(before, after, "binary", list(range(200)))
    together = detectable_change(before, after, "binary", [i // 10 for i in range(200)])
    assert together > 1.5 * alone or math.isnan(together)


def test_margins_detect_by_their_spread():
    changes = np.random.default_rng(0).normal(0, 1.0, 400)
    change = detectable_change(np.zeros(400), changes, "margin", list(range(400)))
    assert change == detectable_margin(400, changes.std(ddof=1))


@pytest.mark.parametrize("kind", ["binary", "margin"])
def test_nothing_changed_detects_nothing_known(kind):
    assert math.isnan(detectable_change(np.ones(10), np.ones(10), kind, list(range(10))))


def test_a_plan_warns_of_a_study_too_small():
    small, large = plan_power(13, 13), plan_power(400, 400)
    assert small.too_small
    assert "Warning" in str(small)
    assert "13 items" in str(small)
    assert small.needed == items_needed(0.10, small.discordance)
    assert not large.too_small
    assert "Warning" not in str(large)
    assert f"{100 * large.detectable:.1f} points" in str(large)
    assert plan_power(small.needed, small.needed).detectable <= 0.1001
    assert small.to_dict()["detectable"] is None or small.to_dict()["detectable"] > 0.1


def test_chance_is_the_mean_over_items():
    assert mean_chance([["a", "b"], ["a", "b", "c", "d"]]) == 0.375
    assert math.isnan(mean_chance([]))
