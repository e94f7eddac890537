"""The rule for the recommended window: error control, pooled neighbours, and what it says of few clips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mata_interp.fusion.share_window import WORTH, _Rule, share_window
from mata_interp.fusion.windows import overlap
from mata_interp.ranges import runs
from mata_interp.statistics.simultaneous import MIN_CLUSTERS


def parts(truth: dict[int, float], clips: int, n: int, noise: float, seed: int) -> np.ndarray:
    """[2 criteria, clip, layer]: effects in some layers (nats), and noise that is larger where there are."""
    mean = np.array([truth.get(layer, 0.0) for layer in range(n)])
    rng = np.random.default_rng(seed)
    scale = noise * (0.3 + mean)
    return mean + scale * rng.standard_t(5, (2, clips, n))


def window(values: np.ndarray) -> tuple[int, ...]:
    labels = [f"clip {i}" for i in range(values.shape[1])]
    return tuple(np.flatnonzero(share_window(values, labels).inside).tolist())


TRUTHS = [{23: 1.0}, {23: 0.8, 24: 1.0}, dict.fromkeys(range(10, 18), 0.5), {2: 1.0, 27: 1.0}]


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: ",".join(map(str, truth)))
def test_windows_of_thirty_layers(truth):
    """Narrow, wide and split windows from 50 clips."""
    windows = [window(parts(truth, 50, 30, 1.0, seed)) for seed in range(3)]
    assert windows.count(tuple(truth)) >= 2


def test_a_layer_with_a_small_share_is_not_worth_an_edit():
    """However certain it is: 5 % of the effect in one layer, exact to a thousandth."""
    assert window(parts({3: 1.0, 6: 0.05}, 100, 8, 0.001, 0)) == (3,)
    assert 0.05 < WORTH < 0.5


def plain_windows(shares, rule, counts) -> list[list[int]]:
    """Steps 2 to 4 on one sample after the other, layer by layer, with the critical values of ``rule``."""
    windows = []
    for count in counts:
        items = np.repeat(np.arange(len(shares)), count)  # one item for each clip
        groups = len(shares)

        def estimate(column, items=items, groups=groups):
            values = column[items]
            spread = ((values - values.mean()) ** 2).sum() * groups / (groups - 1)
            return values.mean(), spread**0.5 / len(values)

        share = [estimate(column) for column in shares.T]
        least = WORTH * max(mean for mean, _ in share)
        worth = [mean >= least for mean, _ in share]
        filled = list(worth)
        for layer in range(1, len(worth) - 1):
            if worth[layer - 1] and worth[layer + 1] and not worth[layer]:
                filled[layer] = share[layer][0] + rule.band.critical * share[layer][1] >= least
        window: list[int] = []
        for first, last in runs(np.flatnonzero(filled).tolist()):
            mean, error = estimate(shares[:, first : last + 1].sum(1))
            if mean - rule.scan.critical_one_sided * error > 0:
                window += range(first, last + 1)
        windows.append(window)
    return windows


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_resamples_follow_the_rule_as_it_is_stated(noise):
    clips, n = 24, 10
    shares = parts({2: 1.0, 4: 0.6, 5: 0.5, 8: 0.3}, clips, n, noise, 1)[0] / 2.4
    rule = _Rule.from_items(shares, [f"{i:02}" for i in range(clips)], 0)
    counts = np.random.default_rng(0).multinomial(clips, np.full(clips, 1 / clips), 150)
    expected = plain_windows(shares, rule, counts)
    assert [np.flatnonzero(row).tolist() for row in rule.apply(counts)] == expected
    assert len(set(map(tuple, expected))) > 5


def test_the_whole_effect_can_be_other_than_the_sum():
    """Two layers that replace each other count half the effect each, or the effect each. Without an effect on
    the whole there is no window, however large the layers' numbers are; with an uncertain one too few clips.
    """
    values, labels = parts({2: 1.0, 6: 1.0}, 40, 9, 0.3, 0)[:1], [str(i) for i in range(40)]
    noise = np.random.default_rng(1).normal(0, 1, (1, 40))
    noise -= noise.mean()
    found = share_window(values, labels, whole=0.8 + 0.1 * noise)
    assert np.flatnonzero(found.inside).tolist() == [2, 6]
    np.testing.assert_allclose(found.share, values[0].mean(0) / values[0].mean(0).sum(), atol=1e-12)
    for whole, verdict in ((0.05 + 0.01 * noise, "no effect"), (0.3 + 3 * noise, "too few clips")):
        result = share_window(values, labels, whole=whole)
        assert (result.verdict, result.inside.any()) == (verdict, False)
    gone = 0.8 + 0.1 * noise
    gone[0, :30] = np.nan
    assert share_window(values, labels, whole=gone).clips == 10


def test_a_gap_of_one_is_filled_unless_it_is_shown_to_do_nothing():
    noisy = np.zeros((1, 40, 7))
    noisy[0, :, [2, 4]] = 1.0 + np.random.default_rng(0).normal(0, 0.3, (2, 40))
    silent = noisy.copy()
    noisy[0, :, 3] = np.random.default_rng(1).normal(0.15, 1.5, 40)
    assert window(silent) == (2, 4)
    assert window(noisy) == (2, 3, 4)


def test_neighbours_are_pooled():
    """Two layers that share one reading, now here, now there: neither stands out as their sum does."""
    rng = np.random.default_rng(0)
    whole, part = 1 + rng.normal(0, 0.1, 12), rng.normal(0.5, 0.8, 12)
    values = np.zeros((1, 12, 6))
    values[0, :, 2], values[0, :, 3] = whole * part, whole * (1 - part)
    assert window(values) == (2, 3)


@pytest.mark.parametrize("clips", [1, 2, MIN_CLUSTERS - 1])
def test_very_few_clips_are_too_few(clips):
    result = share_window(parts({3: 2.0}, clips, 8, 0.1, 0), [f"{i}" for i in range(clips)])
    assert (result.verdict, result.inside.any(), result.clips) == ("too few clips", False, clips)
    assert result.clips_needed is not None
    assert result.clips_needed > clips


def test_the_number_of_clips_needed_is_about_right():
    """With as many clips as are asked for, at least half of the data sets show a true layer."""

    def effect(clips: int, seed: int) -> np.ndarray:
        return parts({3: 0.6, 4: 0.6}, clips, 12, 2.0, seed)

    few = [share_window(effect(8, seed), [str(i) for i in range(8)]) for seed in range(40)]
    needed = [result.clips_needed for result in few if result.clips_needed is not None]
    assert len(needed) > 10
    enough = int(np.median(needed))
    shown = [window(effect(enough, 100 + seed)) for seed in range(20)]
    assert sum(bool({3, 4} & {*result}) for result in shown) >= 10


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(6, 40), st.integers(3, 10), st.floats(0.5, 100))
def test_no_share_is_above_one_and_the_unit_does_not_matter(seed, clips, n, unit):
    values = parts({0: 0.5, n - 1: 1.0}, clips, n, 2.0, seed)
    labels = [str(i) for i in range(clips)]
    result, again = share_window(values, labels, 0.0), share_window(values * unit, labels, 0.0)
    assert 0 <= result.share_inside <= 1
    np.testing.assert_array_equal(result.inside, again.inside)
    np.testing.assert_allclose(result.share, again.share, atol=1e-9)
    if result.inside.any():
        assert 0 <= result.stability <= 1
        assert (result.low <= result.share).all()
        assert (result.share <= result.high).all()


def test_shares_are_ratios_of_means_and_sum_to_one():
    values = parts({1: 1.0, 2: 0.5}, 30, 5, 1.0, 0)
    result = share_window(values, [str(i) for i in range(30)])
    each = [criterion.mean(0) / criterion.mean(0).sum() for criterion in values]
    np.testing.assert_allclose(result.share, np.mean(each, axis=0), atol=1e-12)
    assert result.share.sum() == pytest.approx(1)


def test_the_stability_predicts_windows_of_other_clips():
    """Over effects that some and that nearly all samples show: the mean claim is near the frequency of
    similar windows, misses included, and grows with it. The share of resamples with the layer promises more.
    """
    labels, claimed, similar, plain = [str(i) for i in range(16)], [], [], []
    for noise, effect in [(0.7, 1.0), (0.7, 2.5), (0.4, 2.0)]:
        draws = [share_window(parts({3: effect}, 16, 8, noise, seed), labels) for seed in range(40)]
        windows = [np.flatnonzero(draw.inside).tolist() for draw in draws]
        shown = [place for place, window in enumerate(windows) if window]
        claimed.append(np.mean([draws[place].stability for place in shown]))
        plain.append(np.mean([draws[place].resampled[:, 3].mean() for place in shown]))
        others = [[*windows[:place], *windows[place + 1 :]] for place in shown]
        agree = [
            np.mean([overlap(windows[place], other) >= 0.5 for other in some])
            for place, some in zip(shown, others, strict=True)
        ]
        similar.append(np.mean(agree))
    error = np.array(claimed) - similar
    assert abs(error.mean()) < 0.1
    assert np.abs(error).max() < 0.2
    assert (np.diff(similar) > 0.1).all()
    assert (np.diff(claimed) > 0).all()
    assert (np.array(plain)[:2] > np.array(claimed)[:2] + 0.05).all()


@pytest.mark.parametrize("clips", [12, 50])
def test_family_wise_error_under_the_null(clips):
    """Whole clips with random signs: no layer has an effect, and the noise is that of a model that has. Of
    200 data sets, 5 % and what chance adds (99.9 %: 21) may have a window."""
    rng, false = np.random.default_rng(0), 0
    for seed in range(200):
        values = parts({4: 1.0, 5: 1.0}, clips, 12, 2.0, seed) * rng.choice([-1.0, 1.0], clips)[None, :, None]
        false += bool(window(values))
    assert false <= 21


def test_layers_without_an_effect_are_rarely_taken_beside_a_real_one():
    """16 layers, one of them real, noise in all: at most 1 in 6 windows holds another layer."""
    extra = [{*window(parts({11: 1.0}, 24, 16, 2.0, seed))} - {11} for seed in range(60)]
    assert sum(map(bool, extra)) <= 10
