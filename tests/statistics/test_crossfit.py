"""Cross-fitting against a plain loop over folds, resamples and signs; and choices that have no p-value."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from mata_interp.errors import ArgumentError
from mata_interp.seeding import named_generator
from mata_interp.statistics import crossfit_effect, paired_effect
from mata_interp.statistics.choices import REFUSED, chosen_here
from mata_interp.statistics.clusters import cluster_codes, resampled_counts


def plain(selection, outcome, labels, folds, seed, weights=None):
    """The estimate and the choices, with every item written out as often as its cluster was drawn."""
    codes, count = cluster_codes(labels)
    fold = np.empty(count, dtype=int)
    fold[named_generator(seed, "cross-fitting folds").permutation(count)] = np.arange(count) % folds
    weights = np.ones(count) if weights is None else weights
    total, items, chosen = 0.0, 0, []
    for f in range(folds):
        mean = np.zeros(selection.shape[1])
        for i in range(len(selection)):
            if fold[codes[i]] != f:
                mean += weights[codes[i]] * selection[i]
        best = int(mean.argmax())
        chosen.append(best)
        for i in range(len(selection)):
            if fold[codes[i]] == f:
                total += weights[codes[i]] * outcome[i, best]
                items += abs(weights[codes[i]])
    return total / items, tuple(chosen)


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(12), rng.integers(1, 4, 12))
    selection = rng.normal([0.0, 0.4, 0.1, 0.3], 1.0, (len(labels), 4))
    return selection, np.sign(selection), labels


@pytest.mark.parametrize("folds", [2, 5, 12])
def test_it_is_the_plain_procedure(data, folds):
    selection, outcome, labels = data
    result = crossfit_effect(selection, outcome, labels, folds=folds, draws=60, seed=3)
    estimate, chosen = plain(selection, outcome, labels, folds, 3)
    assert result.difference == pytest.approx(estimate, abs=1e-12)
    assert result.chosen == chosen
    again, times = [], np.zeros(4)
    for counts in next(resampled_counts(12, 60, 3, 8)):
        value, picks = plain(selection, outcome, labels, folds, 3, counts)
        again.append(value)
        times += np.bincount(picks, minlength=4)
    assert result.frequency == pytest.approx(times / times.sum())
    assert (result.high - result.low) / 2 / np.std(again, ddof=1) == pytest.approx(2.20099, abs=1e-4)  # t, 11
    signs = 1.0 - 2.0 * named_generator(3, "cross-fitting signs").integers(0, 2, (60, 12))
    flipped = [abs(plain(selection, outcome, labels, folds, 3, each)[0]) for each in signs]
    assert result.p == (1 + sum(value >= abs(estimate) - 1e-12 for value in flipped)) / 61


def test_the_choice_never_sees_the_fold_it_is_measured_on():
    """A configuration that helps a single clip very much is chosen without every fold but that clip's."""
    changes = np.zeros((10, 2))
    changes[:, 0] = 0.1
    changes[3, 1] = 100.0
    result = crossfit_effect(changes, changes, range(10), folds=10)
    assert sorted(result.chosen) == [0] + [1] * 9
    assert result.difference == pytest.approx((9 * 0.0 + 0.1) / 10)


def test_without_differences_there_is_no_interval():
    result = crossfit_effect(np.zeros((8, 2)), np.zeros((8, 2)))
    assert isnan(result.low)
    assert result.p == 1.0


@pytest.mark.parametrize(
    ("selection", "outcome", "options"),
    [
        (np.zeros((4, 2)), np.zeros((4, 3)), {}),
        (np.zeros(4), np.zeros(4), {}),
        (np.full((4, 2), np.nan), np.zeros((4, 2)), {}),
        (np.zeros((4, 2)), np.zeros((4, 2)), {"folds": 5}),
        (np.zeros((4, 2)), np.zeros((4, 2)), {"folds": 1}),
        (np.zeros((4, 2)), np.zeros((4, 2)), {"clusters": ["a"]}),
    ],
)
def test_bad_input_is_refused(selection, outcome, options):
    with pytest.raises(ArgumentError):
        crossfit_effect(selection, outcome, **{"folds": 2, **options})


@pytest.mark.parametrize("kind", ["binary", "margin"])
def test_what_was_chosen_on_tested_clips_has_no_p(kind):
    before, after, clips = [0, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 0], list("abcdef")
    tested = paired_effect(before, after, kind, clips)
    elsewhere = paired_effect(before, after, kind, clips, chosen_on=["x", "y"])
    assert elsewhere == tested or isnan(tested.bootstrap_low)
    assert elsewhere.p == tested.p < 1
    refused = paired_effect(before, after, kind, clips, chosen_on=["x", "c"])
    assert isnan(refused.p)
    assert isnan(refused.p_permutation)
    assert isnan(refused.p_mcnemar_mid)
    assert refused.p_method == REFUSED
    assert "1 of the 6" in refused.note
    assert (refused.difference, refused.low, refused.high) == (tested.difference, tested.low, tested.high)
    assert type(refused).from_dict(refused.to_dict()).p_method == REFUSED
    assert "nan" not in str(refused)


def test_a_choice_without_clusters_is_refused():
    with pytest.raises(ArgumentError, match="clusters"):
        paired_effect([0, 1], [1, 1], chosen_on=["a"])
    assert chosen_here((), None) == 0
