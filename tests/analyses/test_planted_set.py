"""Scores of windows against planted models: by hand, on a perfect method, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer

from mata_interp.errors import ArgumentError
from mata_interp.fusion.share_window import WORTH
from mata_interp.organism.planted_body import PlantedBodySpec
from mata_interp.organism.planted_growth import GrownModelSpec
from tests.support.analyses import import_analysis


@pytest.fixture(scope="module")
def truths() -> Any:
    return import_analysis("support.planted.truths")


@pytest.fixture(scope="module")
def scoring() -> Any:
    return import_analysis("support.planted.scoring")


@pytest.fixture(scope="module")
def known(truths) -> dict[str, Any]:
    """One model that reads in layers 2-3 of 6, and one that does not use its audio."""
    blindness = import_analysis("support.blindness")
    ends = (1.0, 0.9, 1.1)
    cost = np.array([0.0, 0.0, 0.6, 0.0, 0.13, 0.02])
    gain = np.array([0.0, -0.1, 0.6, 0.8, 0.13, 0.02])
    counts = np.array([0.0, -0.05, 0.6, 0.4, 0.13, 0.02])
    using = blindness.Truth(cost, gain, counts - 0.02, counts + 0.02, ends, ends)
    nothing = np.zeros(6)
    unused = blindness.Truth(nothing, nothing, nothing, nothing, (0.0, 0.0, 0.0), ends)
    return {
        name: truths.KnownModel.from_truth(
            GrownModelSpec(name, "held-out", PlantedBodySpec("base", 6, layers), 6, tuple(range(6))), truth
        )
        for name, layers, truth in (("two", (2, 3), using), ("none", (), unused))
    }


def table(*rows: tuple[str, int, int, str], **more: Any) -> list[dict[str, Any]]:
    return [{"plant": p, "clips": c, "draw": d, "layers": w, **more} for p, c, d, w in rows]


def read(scoring, tmp_path, rows) -> pd.DataFrame:
    path = tmp_path / "windows.json"
    path.write_text(json.dumps(rows))
    return scoring.read_windows(path)


def test_the_truth_is_relative_to_the_layer_that_counts_most(known, truths, tmp_path):
    """0.13 of 0.6 is worth it, 0.02 is not, and an interval of 0.11 to 0.15 includes a fifth of 0.6. Layer 3
    costs nothing alone, and counts 0.4 as it gives back 0.8."""
    assert 0.02 < WORTH * 0.6 < 0.13
    assert (known["two"].layers, known["two"].unclear) == ((2, 3, 4), (4,))
    assert known["none"].layers == ()
    measuring = import_analysis("support.planted.measuring")
    path = tmp_path / "measured.json"
    for model in known.values():
        measuring.store_truth(model, path)
    assert truths.read_known(path) == known
    assert truths.read_known(path, "development") == {}


ROWS = table(
    ("two", 50, 0, "2-4"),  # exact
    ("two", 50, 1, "2-3"),  # 2 of 3
    ("two", 50, 2, "none"),  # abstains: 0
    ("none", 50, 0, "none"),
    ("none", 50, 1, "5"),  # a false window
    ("none", 50, 2, "none"),
)


def test_scores_by_hand(scoring, known, tmp_path):
    scores = scoring.score(read(scoring, tmp_path, ROWS), known)
    models = scores["models"].set_index("plant")
    assert models.loc["two", "iou"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert models.loc["two", ["exact", "abstained"]].tolist() == pytest.approx([1 / 3, 1 / 3])
    (size,) = scores["clips"].to_dict("records")
    assert (size["clips"], size["models"], size["null_draws"]) == (50, 1, 3)
    assert size["iou"] == size["worst_iou"] == pytest.approx(5 / 9)
    assert size["false_windows"] == pytest.approx(1 / 3)
    assert size["false_low"] < 1 / 3 < size["false_high"]


def test_a_csv_file_gives_the_same_scores(scoring, known, tmp_path):
    path = tmp_path / "windows.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    for name, frame in scoring.score(scoring.read_windows(path), known).items():
        pd.testing.assert_frame_equal(frame, scoring.score(read(scoring, tmp_path, ROWS), known)[name])


def test_coverage_counts_boundaries_of_runs_that_overlap(scoring, known, tmp_path):
    edges = [
        {"first": 2, "last": 3, "first_interval": [1, 2], "last_interval": [3, 3]},  # the end is at 4: missed
        {"first": 5, "last": 5, "first_interval": [5, 5], "last_interval": [5, 5]},  # overlaps nothing
    ]
    rows = table(("two", 50, 0, "2-3,5"), boundaries=edges) + table(("none", 50, 0, "none"))
    coverage = scoring.score(read(scoring, tmp_path, rows), known)["boundaries"].to_dict("records")
    assert [row["truth"] for row in coverage] == ["pooled", "as it is"]
    for row in coverage:  # no gap to fill in this model
        assert (row["edges"], row["covered"]) == (2, 0.5)
        assert (row["exact"], row["width"]) == (0.5, 1.5)
    as_text = [{**row, "boundaries": json.dumps(row.get("boundaries", []))} for row in rows]
    path = tmp_path / "windows.csv"
    pd.DataFrame(as_text).to_csv(path, index=False)
    again = scoring.score(scoring.read_windows(path), known)["boundaries"]
    assert again.to_dict("records") == coverage


def test_boundaries_are_compared_with_pooled_runs(scoring, known, tmp_path):
    """Layer 4 counts about a fifth, and 3 less, but not surely so: 2-4 with the gap filled. Layer 0 is at the
    limit as well, and is no gap between two layers of the truth."""
    at_limit = replace(known["two"], layers=(2, 4), unclear=(0, 3))
    assert at_limit.runs == [(2, 4)]
    assert replace(at_limit, unclear=()).runs == [(2, 2), (4, 4)]
    edge = {"first": 2, "last": 4, "first_interval": [2, 2], "last_interval": [4, 4]}
    rows = table(("two", 50, 0, "2-4"), boundaries=[edge]) + table(("none", 50, 0, "none"))
    models = {**known, "two": at_limit}
    pooled, as_it_is = scoring.score(read(scoring, tmp_path, rows), models)["boundaries"].to_dict("records")
    assert (pooled["edges"], pooled["covered"]) == (2, 1.0)
    assert (as_it_is["edges"], as_it_is["covered"]) == (4, 0.5)


def test_stability_is_compared_with_other_draws(scoring, known, tmp_path):
    """Of four draws three are similar: each of these agrees with 2 of 3 others, the fourth with none."""
    windows = ["2-3", "2-3", "2-4", "0"]
    rows = [
        {"plant": "two", "clips": 50, "draw": d, "layers": w, "stability": 0.9} for d, w in enumerate(windows)
    ]
    rows += table(*(("none", 50, d, "none") for d in range(4)))
    (calibration,) = scoring.score(read(scoring, tmp_path, rows), known)["stability"].to_dict("records")
    assert (calibration["windows"], calibration["range"]) == (4, "0.80-0.95")
    assert calibration["claimed"] == pytest.approx(0.9)
    assert calibration["observed"] == pytest.approx((3 * 2 / 3 + 0) / 4)


REFUSED = {
    "a model without windows": (ROWS[:3], "none"),
    "a missing draw": (ROWS[:-1], "draw 2"),
    "a draw twice": ([*ROWS, ROWS[0]], "twice"),
    "a layer that is not there": ([*ROWS[1:], {**ROWS[0], "layers": "2-6"}], "6 layers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_incomplete_files_are_refused(scoring, known, tmp_path, name):
    rows, message = REFUSED[name]
    with pytest.raises(ArgumentError, match=message):
        scoring.score(read(scoring, tmp_path, rows), known)


def test_a_wrong_row_is_named(scoring, tmp_path):
    with pytest.raises(ArgumentError, match="row 1"):
        read(scoring, tmp_path, [ROWS[0], {**ROWS[1], "layers": "two"}])
    with pytest.raises(ArgumentError, match="draw"):
        read(scoring, tmp_path, [{"plant": "two", "clips": 50, "layers": "2"}])


def test_draws_are_the_same_everywhere(truths):
    first = truths.draw_clips("30-narrow", 50, 7)
    assert len(set(first)) == 50
    assert first.max() < truths.POOL
    np.testing.assert_array_equal(first, truths.draw_clips("30-narrow", 50, 7))
    assert not np.array_equal(first, truths.draw_clips("30-narrow", 50, 8))
    assert not np.array_equal(first, truths.draw_clips("30-wide", 50, 7))


@pytest.fixture
def effects() -> dict[str, Any]:
    """Layers 2 and 4 of a model replace each other, 3 is needed; the other model does not use its audio."""
    measuring = import_analysis("support.planted.measuring")
    rng, means = np.random.default_rng(0), [[0, 0, 0, 0.6, 0, 0], [0, 0, 0.8, 0.6, 0.6, 0]]
    noise = rng.normal(0, 0.1, (2, 60, 6))
    return {
        "two": measuring.Effects(np.array(means)[:, None] + noise, rng.normal(1.2, 0.3, 60)),
        "none": measuring.Effects(rng.normal(0, 0.1, (2, 60, 6)), rng.normal(0, 0.3, 60)),
    }


def test_effects_survive_their_file(effects, tmp_path):
    measuring = import_analysis("support.planted.measuring")
    path = tmp_path / "effects.npz"
    for name, some in effects.items():
        measuring.store_effects(name, some, path)
    again = measuring.load_effects(path)
    assert list(again) == list(effects)
    for name, some in effects.items():
        np.testing.assert_allclose(again[name].layers, some.layers, atol=1e-3)
        np.testing.assert_allclose(again[name].whole, some.whole, atol=2e-3)


def test_windows_of_known_effects_are_written_and_scored(known, effects, tmp_path, capsys, monkeypatch):
    """From effects to a file to a score: exact where the effect is clear, no window where there is none."""
    windows = import_analysis("support.planted.windows")
    study = import_analysis("planted_truth")
    rows = list(windows.recommended_windows(effects, [24, 50], draws=3, resampled_draws=1))
    assert [row["layers"] for row in rows if row["plant"] == "two"] == ["2-4"] * 6
    assert sum(row["stability"] is not None for row in rows) == 2
    path = tmp_path / "windows.json"
    path.write_text(json.dumps(rows))
    monkeypatch.setattr(study, "read_known", lambda role: known)
    study.main(scored=path, role=None, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert [row["iou"] for row in printed["clips"]] == [1.0, 1.0]
    assert [row["false_windows"] for row in printed["clips"]] == [0.0, 0.0]
    assert printed["boundaries"][0]["covered"] == 1.0
    with pytest.raises(typer.BadParameter, match="no table"):
        study.main(scored=tmp_path / "nothing.json", role=None)


def test_random_signs_leave_no_effect(effects):
    """The models' own clips with random signs: of 60 resamples of 24 clips, at most 8 (99.9 % at 5 %)."""
    windows = import_analysis("support.planted.windows")
    using = {"two": effects["two"]}
    assert windows.false_windows(using, 24, 60).sum() <= 8
    assert windows.false_windows(using, 24, 10, signs=False).all()


def test_the_truths_that_ship_are_of_the_set_that_ships(truths):
    specs, known = import_analysis("support.planted.sources").every_spec(), truths.read_known()
    measuring = import_analysis("support.planted.measuring")
    effects = measuring.load_effects()
    held = [model for model in known.values() if model.role == "held-out"]
    assert sum(bool(model.layers) for model in held) >= 7
    assert sum(not model.layers for model in held) >= 5
    for name, model in known.items():
        assert (model.role, model.num_layers) == (specs[name].role, specs[name].num_layers)
        assert model.planted == specs[name].fusion_layers
        assert effects[name].layers.shape == (2, truths.POOL, model.num_layers)
        assert effects[name].whole.shape == (truths.POOL,)


def test_shapley_values_of_a_game_that_can_be_enumerated():
    """Layer 1 counts by itself, layers 0 and 3 replace each other, and layer 2 does nothing."""
    shapley = import_analysis("support.planted.shapley")
    scale = np.array([1.0, 2.0, 3.0])  # of three items

    def margins(sets):
        hidden = [set(some) for some in sets]
        return np.array([-scale * ((1 in some) + 4.0 * ({0, 3} <= some)) for some in hidden])

    every = list(permutations(range(4)))
    orders = [order for one in every if one < one[::-1] for order in (one, one[::-1])]
    assert sorted(orders) == every
    values = shapley.shapley_values(margins, orders)
    np.testing.assert_allclose(values.mean(0), np.array([2.0, 1.0, 0.0, 2.0])[:, None] * scale, atol=1e-12)
    shares = shapley.layer_shares(values)
    np.testing.assert_allclose(shares.share, [0.4, 0.2, 0.0, 0.4], atol=1e-12)
    np.testing.assert_allclose(shares.error, 0, atol=1e-12)  # every item says the same
    assert shares.total == pytest.approx(10.0)
    assert shares.layers == (0, 1, 3)

    drawn = shapley.random_orders(4, 200)
    assert all(a == b[::-1] for a, b in zip(drawn[::2], drawn[1::2], strict=True))
    some = shapley.layer_shares(shapley.shapley_values(margins, drawn))
    assert some.share.sum() == pytest.approx(1.0)
    # a pair gives layers 0 and 3 both halves: whichever comes first in the one comes last in the other
    np.testing.assert_allclose(some.share, shares.share, atol=1e-12)
