"""The choice of layers and alpha: the best margin, ties, and the edge of the grid."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from mata_interp.errors import ArgumentError
from mata_interp.experiments.choosing import choose, resolve_search
from mata_interp.experiments.study_result import Configuration
from mata_interp.interventions import DEFAULT_ALPHAS, Mata
from mata_interp.sweeps import LARGE_GRID, LEAST_CLIPS

TRIED = {f"{layers}@{alpha}": Mata(alpha, layers) for layers in ([0], [1], [0, 1]) for alpha in (0.1, 1.0)}


def swept(margins: dict[str, float]) -> xr.DataArray:
    """Two items with two options; the first option is right and better by the configuration's margin."""
    names = ["baseline", *TRIED]
    values = np.array([[[margins.get(name, 0.0), 0.0] for name in names]] * 2)
    coords = {"item": ["a", "b"], "configuration": names, "answer": ("item", [0, 0])}
    return xr.DataArray(values, coords, ("item", "configuration", "choice"))


def test_the_best_mean_margin_is_chosen():
    choice = choose(swept({"[1]@0.1": 2.0, "[0, 1]@1.0": 1.0}), TRIED)
    assert choice.name == "[1]@0.1"
    assert choice.chosen == Configuration(layers=(1,), alpha=0.1, rule="abs")
    assert len(choice.grid) == 6
    best = next(row for row in choice.grid if row.configuration == choice.chosen)
    assert (best.margin, best.accuracy, best.n) == (2.0, 1.0, 2)
    assert (choice.baseline.margin, choice.baseline.n) == (0.0, 2)
    assert "2.000 nats" in choice.reason
    assert "6 configurations" in choice.reason
    assert "edge" not in choice.reason


def test_ties_go_to_the_smallest_alpha_then_the_fewest_layers():
    assert choose(swept(dict.fromkeys(TRIED, 1.0)), TRIED).name == "[0]@0.1"
    assert choose(swept({"[0, 1]@0.1": 1.0, "[1]@1.0": 1.0}), TRIED).name == "[0, 1]@0.1"


@pytest.mark.parametrize(
    ("best", "edges"),
    [
        ("[1]@1.0", "(the largest alpha)"),
        ("[0, 1]@0.1", "(the widest window)"),
        ("[0, 1]@1.0", "(the largest alpha and the widest window)"),
    ],
)
def test_a_choice_at_the_edge_says_so(best, edges):
    assert edges in choose(swept({best: 1.0}), TRIED).reason


def test_none_better_than_the_baseline_is_said():
    choice = choose(swept(dict.fromkeys(TRIED, -1.0) | {"[0]@0.1": -0.5}), TRIED)
    assert "No configuration" in choice.reason
    assert choice.chosen.layers == (0,)


def searched() -> xr.DataArray:
    """Four items in two rounds: [0]@0.1 and [1]@0.1 in the first, [0, 1]@0.1 and [1]@1.0 in the last."""
    names = ["baseline", "[0]@0.1", "[1]@0.1", "[0, 1]@0.1", "[1]@1.0"]
    margins = np.full((4, 5), np.nan)
    margins[:, 0] = [1.0, 3.0, -2.0, 0.0]
    margins[:2, 1], margins[:2, 2] = [9.0, 9.0], [2.0, 4.0]
    margins[2:, 3], margins[2:, 4] = [-1.0, 1.5], [-1.0, 0.5]
    values = np.stack([margins, np.where(np.isnan(margins), np.nan, 0.0)], -1)
    coords = {"item": list("abcd"), "configuration": names, "answer": ("item", [0] * 4)}
    scores = xr.DataArray(values, coords, ("item", "configuration", "choice"), attrs={"grid": 6})
    return scores.assign_coords(round=("item", [0, 0, 1, 1]))


def test_a_search_chooses_among_the_last_round_and_keeps_all_that_was_tried():
    choice = choose(searched(), TRIED)
    assert choice.chosen == Configuration(layers=(0, 1), alpha=0.1, rule="abs")  # not [0]@0.1 of the first
    rows = {(row.layers, row.alpha): row for row in choice.grid}
    assert set(rows) == {((0,), 0.1), ((1,), 0.1), ((0, 1), 0.1), ((1,), 1.0)}
    assert {row.n for row in choice.grid} == {2}
    assert (choice.baseline.margin, choice.baseline.n) == (0.5, 4)
    # the baseline's margin on all items plus the mean change on those of the round
    assert rows[(0,), 0.1].margin == pytest.approx(0.5 + 7.0)
    assert rows[(0, 1), 0.1].margin == pytest.approx(0.5 + 1.25)
    assert rows[(1,), 1.0].margin == pytest.approx(0.5 + 0.75)
    assert rows[(0, 1), 0.1].accuracy == 0.5
    for number in ("the 2 configurations of the last round", "tried 4 of 6", "on 2 items"):
        assert number in choice.reason


def test_ties_of_a_last_round_go_to_the_smallest_alpha():
    scores = searched()
    scores.loc[{"configuration": "[1]@1.0", "item": ["c", "d"], "choice": 0}] = [-1.0, 1.5]
    assert choose(scores, TRIED).name == "[0, 1]@0.1"


WINDOWS = {
    f"{first}-{stop}@{alpha}": Mata(alpha, range(first, stop))
    for first in range(18)
    for stop in range(first + 1, min(18, first + 9) + 1)
    for alpha in DEFAULT_ALPHAS
}


@pytest.mark.parametrize(
    ("search", "configurations", "clips", "resolved"),
    [
        (None, WINDOWS, LEAST_CLIPS, "coarse"),
        (None, WINDOWS, LEAST_CLIPS - 1, "full"),
        (None, TRIED, 96, "full"),
        ("full", WINDOWS, 96, "full"),
        ("coarse", TRIED, 96, "coarse"),
    ],
)
def test_a_large_grid_is_searched_from_coarse_to_fine(search, configurations, clips, resolved):
    assert len(WINDOWS) == 630 > LARGE_GRID
    assert resolve_search(search, configurations, clips) == resolved


@pytest.mark.parametrize(
    ("search", "configurations", "clips", "message"),
    [
        ("coarse", WINDOWS, 31, "32 clips to choose on, and there are 31"),
        ("coarse", {"a": Mata(1.0, [1]), "b": Mata(2.0, [1])}, 96, "layers are given"),
        ("fine", WINDOWS, 96, "No search 'fine'"),
    ],
)
def test_searches_that_make_no_sense_are_refused(search, configurations, clips, message):
    with pytest.raises(ArgumentError, match=message):
        resolve_search(search, configurations, clips)
