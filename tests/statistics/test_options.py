"""Choice, correctness and margin of option scores, against a plain loop."""

from __future__ import annotations

import math

import numpy as np

from mata_interp.statistics import best_option, is_correct, margin


def test_a_loop_over_items_gives_the_same():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 3, 4)).round(1)  # (item, configuration, option), with ties
    sizes = rng.integers(2, 5, 40)
    answer = rng.integers(0, sizes)
    answer[:5] = -1
    scores[np.arange(4) >= np.broadcast_to(sizes[:, None, None], (40, 3, 1))] = np.nan
    for item in range(40):
        for configuration in range(3):
            options = list(scores[item, configuration, : sizes[item]])
            right = answer[item]
            best = options.index(max(options))
            here = scores[item, configuration]
            assert best_option(here) == best
            assert is_correct(here, right) == (best == right)
            wrong = [value for option, value in enumerate(options) if option != right]
            expected = math.nan if right < 0 else options[right] - max(wrong)
            np.testing.assert_equal(margin(here, right).item(), expected)
    stacked = margin(scores, answer[:, None])
    assert stacked.shape == (40, 3)
    assert np.isnan(stacked[:5]).all()
    np.testing.assert_array_equal(is_correct(scores, answer[:, None]), best_option(scores) == answer[:, None])
