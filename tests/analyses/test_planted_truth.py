"""Planted truth: what is counted, by hand; the truth by another way; and the analysis at a small size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mata_interp as mi
from tests.analyses.test_analyses import imported


@pytest.fixture(scope="module")
def study() -> Any:
    return imported("planted_truth")


@pytest.fixture(scope="module")
def truths() -> Any:
    return imported("support.blindness")


@pytest.mark.parametrize(
    ("found", "true", "off"),
    [
        ((), (), 0),
        ((3,), (), None),
        ((), (3,), None),
        ((3, 4), (3, 4), 0),
        ((4,), (3, 4), 1),
        ((2, 3, 4, 5, 6), (3, 4), 2),
        ((3, 6), (3, 6), 0),
        ((6,), (3, 6), 3),  # the piece that was missed
        ((3, 4, 5, 6), (3, 6), 3),  # and the gap
        ((3, 4, 7), (3, 4), 4),  # a piece too many: from its first layer to the only one there is
    ],
)
def test_boundary_error_sees_every_piece(study, found, true, off):
    assert study.boundary_error(found, true) == off


def test_summary_counts(study):
    rows = [
        {"plant": plant, "way": way, "tuned_on": tuned, "criterion": name, "iou": iou, "boundary_error": off}
        for name, ious in {"lens": (0, 1, 1), "window": (1, 0.5, 1)}.items()
        for plant, way, tuned, iou, off in zip(
            "abc", ("window", "penalty", "penalty"), (True, False, False), ious, (None, 2, 0), strict=True
        )
    ]
    told = study.summary(pd.DataFrame(rows)).set_index("criterion")
    assert list(told.index) == ["window", "lens"]  # what is recommended, then the best
    first = told.loc["window"]
    assert first["iou"] == pytest.approx(2.5 / 3)
    assert (first["iou_window"], first["iou_penalty"], first["iou_held_out"]) == (1, 0.75, 0.75)
    assert (first["worst_boundary"], first["one_empty"], first["right"], first["plants"]) == (2, 1, 2, 3)
    assert 0 < first["right_low"] < 2 / 3 < first["right_high"] < 1


@pytest.fixture(scope="module")
def healthy() -> mi.LALM:
    return mi.LALM.from_pretrained("organism-unbiased")


def test_blindness_is_a_knockout_from_all_text(truths, healthy):
    """In the mask of eager attention, against the toolkit's own intervention; and nothing of it stays."""
    items = mi.load_benchmark("listening").filter(condition="neutral").sample(6, seed=1)
    plain = truths.margin(healthy, items, ())
    for layers in [(2, 5), tuple(range(healthy.layers))]:
        knockout = mi.Mata(1.0, layers, "knockout", queries="text")
        swept = mi.margin(mi.sweep(healthy, items, {"blind": knockout}, progress=False))
        blind = truths.margin(healthy, items, layers)
        np.testing.assert_allclose(blind, swept.sel(configuration="blind").values, atol=2e-4)
        assert np.abs(blind - plain).max() > 0.1
    assert healthy.model.get_decoder().config._attn_implementation == "sdpa"
    np.testing.assert_array_equal(truths.margin(healthy, items, ()), plain)


def test_the_truth_is_a_ratio_of_means(truths, healthy, monkeypatch):
    items = mi.load_benchmark("listening").filter(condition="neutral").sample(3, seed=1)
    seeing, loss = np.array([2.0, 1.0, -3.0]), np.zeros(healthy.layers)
    loss[2:5] = 0.06, 0.5, 0.3
    monkeypatch.setattr(truths, "margin", lambda lalm, asked, blind: seeing - loss[list(blind)].sum())
    found = truths.blindness(healthy, items)
    np.testing.assert_allclose(found.cost, loss / 0.86)
    np.testing.assert_allclose(found.low, found.high)  # all items alike
    assert found.layers == (3, 4)
    assert found.total == pytest.approx((0.86, 0.86, 0.86))
    assert found.accuracy[0] == pytest.approx(2 / 3)
    loss[2:5] = 0.01, 0.05, 0.03  # too little to speak of
    assert truths.blindness(healthy, items).layers == ()


def test_planted_truth(study, tmp_path, capsys):
    """Barely trained: what it finds is not looked at, what it tells is."""
    study.main(tmp_path, "2", items=6, share=0.005, seed=0, as_json=True)
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # NaN is no JSON
    assert {row["plant"] for row in told["rows"]} == {"penalty-1"}
    assert {row["criterion"] for row in told["rows"]} == {"window", *mi.fusion.CRITERIA}
    assert all(row["planted"] == [1] and 0 <= row["iou"] <= 1 for row in told["rows"])
    assert len(told["summary"]) == len(told["rows"])
    assert (tmp_path / "planted_truth.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "planted_truth_by_clips.csv").exists()
