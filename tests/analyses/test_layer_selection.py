"""Layer selection: ranks by their definition, and the analysis at a small size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import mata_interp as mi
from tests.support.analyses import import_analysis, run_analysis

STEPS = np.array([3, 2, 1, 0])


@pytest.fixture(scope="module")
def ranking() -> Any:
    return import_analysis("support.ranking")


@pytest.fixture(scope="module")
def study() -> Any:
    return import_analysis("layer_selection")


def test_ranks_are_counts(ranking):
    values = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 1.0, 0.0]])
    assert ranking.rank(values, 0).tolist() == [1, 3, 1.5]
    assert ranking.rank(values, 1).tolist() == [3, 2, 1.5]


def test_a_clear_rank_and_an_unclear_one(ranking):
    draws = np.random.default_rng(0)
    clusters = [str(i // 2) for i in range(80)]
    noise = draws.normal(0, 0.5, (80, 4))
    apart = ranking.ranked(noise + STEPS, 1, clusters, 0)
    assert apart == {"rank": 2, "of": 4, "rank_low": 2, "rank_high": 2}
    compared = ranking.compared(noise + STEPS, 1, clusters, "margin", 0)
    assert (compared["set_low"], compared["set_high"]) == (2, 2)
    assert set(compared["pairs"]) == {0, 2, 3}
    assert compared["pairs"][0]["difference"] == pytest.approx(-1, abs=0.3)
    assert compared["against_mean"].difference == pytest.approx(2 - 4 / 3, abs=0.3)
    alike = ranking.compared(noise, 1, clusters, "margin", 0)
    assert (alike["set_low"], alike["set_high"]) == (1, 4)
    assert all(pair["p"] <= pair["p_holm"] for pair in alike["pairs"].values())
    near = ranking.ranked(noise, 1, clusters, 0)
    assert near["rank_low"] < near["rank"] or near["rank_high"] > near["rank"]


def test_the_bootstrap_of_a_rank_is_that_of_enumeration(ranking):
    """Two clusters: resamples are the one, the other or both, 1/4, 1/4, 1/2."""
    values = np.array([[1.0, 0.0], [0.0, 0.4]])
    result = ranking.ranked(values, 0, ["a", "b"], 0)
    assert result == {"rank": 1, "of": 2, "rank_low": 1, "rank_high": 2}


def test_windows_of_equal_width(study):
    layers = range(6)
    assert study.equal((2, 3), layers) == [(2, 3), (0, 1), (1, 2), (3, 4), (4, 5)]
    gaps = study.equal((0, 2, 3), layers)
    assert gaps[0] == (0, 2, 3)
    assert set(gaps) == {(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 2, 3), (1, 3, 4), (2, 4, 5)}
    assert study.equal((1, 5), (1, 3, 5, 7)) == [
        (1, 5),
        (1, 3),
        (3, 5),
        (5, 7),
        (3, 7),
    ]  # places, not numbers
    assert len(study.all_sets((2, 3), layers, 15)) == 15
    assert study.all_sets((2, 3), layers, 15)[0] == (2, 3)
    assert study.all_sets((2, 3), layers, 14) == []


def test_each_window_has_its_best_and_smallest_strength(study):
    lalm = mi.LALM.from_pretrained("organism")
    items = mi.load_benchmark("listening").split("selection").filter(condition="conflict").sample(3)
    tried = {f"{w}{a}": mi.Mata(a, w) for w in ((4, 5), (6,)) for a in (0.0, -0.0, 1.0)}
    swept = mi.sweep(lalm, items, tried, progress=False)
    margins: dict[str, float] = mi.margin(swept).mean("item").to_series().to_dict()
    result = study.best_alphas(swept, tried)
    for window in ((4, 5), (6,)):
        better = margins[f"{window}1.0"] > margins[f"{window}0.0"]
        assert result[window] == (1.0 if better else 0.0)


@pytest.mark.acceptance
def test_layer_selection(tmp_path):
    lalm, names = mi.LALM.from_pretrained("organism"), ["knockout_last", "depth"]
    items = mi.load_benchmark("listening").split("selection").filter(condition="neutral").sample(3)
    profile = mi.fusion_layers(lalm, items, criteria=names, progress=False).to_dict()
    windows = {"knockout_last": [4, 5, 6, 7], "depth": [3, 4, 5]}
    profile |= {"window": [4, 5, 7], "verdict": "found", "windows": windows}  # three clips are too few
    mi.FusionProfile.from_dict(profile).save(tmp_path / "layers.json")
    arguments = [
        "--layers",
        str(tmp_path / "layers.json"),
        "--items",
        "16",
        "--grid-items",
        "3",
        "--sets",
        "60",
    ]
    result: Any = run_analysis("layer_selection.py", *arguments, "--out", str(tmp_path))
    assert result == json.loads((tmp_path / "layer_selection.json").read_text())
    window = result["window"]
    assert window == [4, 5, 7]
    sizes = {row["name"]: row["of"] for row in result["ranks"]}
    # three neighbours, or this shape; all sets of three; four neighbours; three neighbours
    assert sizes == {"window": 11, "sets": 56, "knockout_last": 5, "depth": 6}
    window_rows = [row for row in result["ranks"] if row["name"] == "window"]
    assert {(row["caption"], row["measure"]) for row in window_rows} == {
        (caption, measure) for caption in ("conflict", "neutral") for measure in ("margin", "accuracy")
    }
    effects = {(row["caption"], *row["layers"]): row for row in result["effects"]}
    for row in window_rows:
        assert row["layers"] == window
        assert len(row["pairs"]) == row["of"] - 1
        assert 1 <= row["set_low"] <= row["set_high"] <= row["of"]
        assert 1 <= row["rank_low"] <= row["rank_high"] <= row["of"]
        for pair in row["pairs"]:
            assert len(pair["layers"]) == len(window)
            both = [effects[row["caption"], *layers][row["measure"]] for layers in (window, pair["layers"])]
            assert pair["difference"] == pytest.approx(both[0] - both[1], abs=1e-6)
            assert pair["p"] <= pair["p_holm"]
    for row in result["effects"]:
        assert row["alpha"] in result["alphas"]
        assert row["margin_low"] <= row["margin"] <= row["margin_high"]
    assert (tmp_path / "layer_selection.png").read_bytes().startswith(b"\x89PNG")
