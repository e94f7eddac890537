"""The choice of layers and alpha: the best margin, ties, and the edge of the grid."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from mata_interp.experiments.choosing import choose
from mata_interp.experiments.study_result import Configuration
from mata_interp.interventions import Mata

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
