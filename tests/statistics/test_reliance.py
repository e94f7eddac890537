"""Text dominance and text prior: against published numbers and their definitions."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from mata_interp.statistics import text_dominance, text_prior


def test_wilsons_interval_is_the_published_one():
    """Newcombe (1998, Stat Med 17:857), table I, method 3: 81/263, 15/148 and 1/29."""
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (1, 29): (0.0061, 0.1718)}
    for (count, n), interval in published.items():
        text = np.arange(n) < count
        rate = text_dominance(text, ~text)
        assert rate.value == count / n
        assert (rate.low, rate.high) == pytest.approx(interval, abs=5e-5)
        assert rate.method == "Wilson"


def test_answers_that_follow_neither_are_counted_and_left_out():
    rate = text_dominance([1, 1, 0, 0], [0, 0, 1, 0])
    assert (rate.numerator, rate.denominator, rate.n, rate.value) == (2, 3, 4, 2 / 3)
    nothing = text_dominance([0, 0], [0, 0])
    assert isnan(nothing.value)
    assert isnan(nothing.low)
    with pytest.raises(ValueError, match="1 items follow both"):
        text_dominance([1, 1], [1, 0])
    with pytest.raises(ValueError, match="lengths differ"):
        text_dominance([1, 1], [0, 0], clusters=["a"])


def test_all_on_one_side_still_has_an_interval():
    rate = text_dominance([1] * 20, [0] * 20, clusters=np.repeat(np.arange(5), 4))
    assert (rate.value, rate.high) == (1, 1)
    assert rate.low == pytest.approx(5 / (5 + 1.959964**2))  # Wilson's for 5 of 5
    one = text_dominance([1, 0], [0, 1], clusters=["a", "a"])
    assert (isnan(one.low), one.method) == (True, "none: one cluster")


def test_text_prior_is_a_ratio_of_accuracies():
    without, with_audio = [1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 0, 0]
    rate = text_prior(without, with_audio)
    assert rate.value == (3 / 6) / (4 / 6)
    assert rate.low < rate.value < rate.high
    assert text_prior([1, 1, 0, 0], [1, 0, 0, 0]).high > 10  # a single right answer with audio says little
    nothing = text_prior([0] * 20, [1] * 20, np.repeat(np.arange(5), 4))
    assert (nothing.low, nothing.value) == (0, 0)
    assert nothing.high == pytest.approx(1.959964**2 / 5)  # of 5 clips, all alike
    assert isnan(text_prior([1, 0], [0, 0]).value)


def test_the_interval_of_the_text_prior_covers_the_truth():
    """300 simulated runs of 200 items, the two answers of an item dependent; 95 % aimed at."""
    rng, truth, hits = np.random.default_rng(1), 0.5 / 0.8, 0
    for _ in range(300):
        easy = rng.random(200)
        rate = text_prior(easy < 0.5, (easy + 0.2 * rng.random(200)) % 1 < 0.8)
        hits += rate.low <= truth <= rate.high
    assert hits / 300 > 0.92
