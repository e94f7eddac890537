"""The alpha that makes a sham as strong as MATA."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mata_interp.experiments.dose_matching import LARGEST, match_alpha


@given(st.floats(1e-6, 0.5), st.floats(1e-3, 1e3), st.floats(0.01, 3.0))
def test_a_strength_that_grows_as_alpha_squared_and_saturates_is_matched(target, steepness, start):
    match = match_alpha(lambda alpha: 1 - math.exp(-steepness * alpha**2), target, start)
    reachable = 1 - math.exp(-steepness * LARGEST**2) >= target
    assert reachable
    assert match.strength == pytest.approx(target, rel=0.0201)
    assert match.alpha == float(f"{match.alpha:.4g}")
    assert match.tried[-1] == (match.alpha, match.strength)


def test_what_cannot_be_reached_ends_at_the_nearest():
    match = match_alpha(lambda alpha: 0.1 * (1 - math.exp(-alpha)), target=0.5, start=0.3)
    assert match.strength == max(strength for _, strength in match.tried)
    assert match.target == 0.5


def test_no_target_no_match():
    with pytest.raises(ValueError, match="above 0"):
        match_alpha(lambda alpha: alpha, target=0.0, start=1.0)
