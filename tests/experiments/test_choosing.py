"""The choice of layers and alpha: the best margin, the gentlest of equals, and its edge said."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from mata_interp.experiments.choosing import choose
from mata_interp.interventions import Mata

TRIED = {f"{layers}@{alpha}": Mata(alpha, layers) for layers in ([0], [1], [0, 1]) for alpha in (0.1, 1.0)}


def swept(margins: dict[str, float]) -> xr.DataArray:
    """Two items with two options; the first option is right and better by the configuration's margin."""
    names = ["baseline", *TRIED]
    values = np.array([[[margins.get(name, 0.0), 0.0] for name in names]] * 2)
    coords = {"item": ["a", "b"], "configuration": names, "answer": ("item", [0, 0])}
    return xr.DataArray(values, coords, ("item", "configuration", "choice"))


def test_the_best_mean_margin_is_chosen():
    name, choice = choose(swept({"[1]@0.1": 2.0, "[0, 1]@1.0": 1.0}), TRIED)
    assert name == "[1]@0.1"
    assert choice["chosen"] == {"layers": [1], "alpha": 0.1, "rule": "abs"}
    assert len(choice["grid"]) == 6
    assert "edge" not in choice["reason"]
    assert choice["reason"].startswith("Best mean margin (2.000 nats) of 6 configurations on 2 items")


def test_of_equals_the_gentlest():
    assert choose(swept(dict.fromkeys(TRIED, 1.0)), TRIED)[0] == "[0]@0.1"
    assert choose(swept({"[0, 1]@0.1": 1.0, "[1]@1.0": 1.0}), TRIED)[0] == "[0, 1]@0.1"


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ("[1]@1.0", "(the largest alpha)"),
        ("[0, 1]@0.1", "(the widest window)"),
        ("[0, 1]@1.0", "(the largest alpha and the widest window)"),
    ],
)
def test_a_choice_at_the_edge_says_so(best, said):
    assert said in choose(swept({best: 1.0}), TRIED)[1]["reason"]


def test_none_better_than_the_baseline_is_said():
    _, choice = choose(swept(dict.fromkeys(TRIED, -1.0) | {"[0]@0.1": -0.5}), TRIED)
    assert "No configuration raised it" in choice["reason"]
    assert choice["chosen"]["layers"] == [0]
