"""Planted truth: counts by hand, the truth by an independent method, and the analysis at a small size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mata_interp as mi
from tests.support.analyses import import_analysis


@pytest.fixture(scope="module")
def study() -> Any:
    return import_analysis("planted_truth")


@pytest.fixture(scope="module")
def truths() -> Any:
    return import_analysis("support.blindness")


@pytest.mark.parametrize(
    ("measured", "true", "off"),
    [
        ((), (), 0),
        ((3,), (), None),
        ((), (3,), None),
        ((3, 4), (3, 4), 0),
        ((4,), (3, 4), 1),
        ((2, 3, 4, 5, 6), (3, 4), 2),
        ((3, 6), (3, 6), 0),
        ((6,), (3, 6), 3),  # a missing piece
        ((3, 4, 5, 6), (3, 6), 3),  # a filled gap
        ((3, 4, 7), (3, 4), 4),  # an extra piece: from its first layer to the only other one
    ],
)
def test_boundary_error_sees_every_piece(study, measured, true, off):
    assert study.boundary_error(measured, true) == off


def test_summary_counts(study):
    rows = [
        {
            "model": model,
            "method": method,
            "tuned_on": tuned,
            "criterion": name,
            "iou": iou,
            "boundary_error": off,
        }
        for name, ious in {"lens": (0, 1, 1), "window": (1, 0.5, 1)}.items()
        for model, method, tuned, iou, off in zip(
            "abc", ("window", "penalty", "penalty"), (True, False, False), ious, (None, 2, 0), strict=True
        )
    ]
    summary = study.summary(pd.DataFrame(rows)).set_index("criterion")
    assert list(summary.index) == ["window", "lens"]  # the recommended window, then the best criterion
    first = summary.loc["window"]
    assert first["iou"] == pytest.approx(2.5 / 3)
    assert (first["iou_window"], first["iou_penalty"], first["iou_held_out"]) == (1, 0.75, 0.75)
    assert (first["worst_boundary"], first["one_empty"], first["right"], first["models"]) == (2, 1, 2, 3)
    assert 0 < first["right_low"] < 2 / 3 < first["right_high"] < 1


@pytest.fixture(scope="module")
def unbiased() -> mi.LALM:
    return mi.LALM.from_pretrained("organism-unbiased")


def test_blindness_is_a_knockout_from_all_text(truths, unbiased):
    """In the mask of eager attention, against the toolkit's own intervention; and nothing of it stays."""
    items = mi.load_benchmark("listening").filter(condition="neutral").sample(6, seed=1)
    every = tuple(range(unbiased.num_layers))
    sets = [(2, 5), every, (4,), (0,), (7,), every[:3] + every[4:], every[1:], every[:7]]
    knockouts = {str(layers): mi.Mata(1.0, layers, "knockout", queries="text") for layers in sets}
    swept = mi.margin(mi.sweep(unbiased, items, knockouts, progress=False))
    plain, *blind = truths.margins(unbiased, items, [(), *sets])
    for layers, margins in zip(sets, blind, strict=True):
        np.testing.assert_allclose(margins, swept.sel(configuration=str(layers)).values, atol=2e-4)
        np.testing.assert_array_equal(truths.margin(unbiased, items, layers), margins)
    assert min(np.abs(margins - plain).max() for margins in blind[:2]) > 0.1
    assert unbiased.model.get_decoder().config._attn_implementation == "sdpa"
    np.testing.assert_array_equal(truths.margin(unbiased, items, ()), plain)


def test_the_truth_is_a_ratio_of_means(truths, unbiased, monkeypatch):
    items = mi.load_benchmark("listening").filter(condition="neutral").sample(3, seed=1)
    seeing, loss = np.array([2.0, 1.0, -3.0]), np.zeros(unbiased.num_layers)
    loss[2:5] = 0.06, 0.5, 0.3
    monkeypatch.setattr(
        truths,
        "margins",
        lambda lalm, items, blinds: np.array([seeing - loss[list(blind)].sum() for blind in blinds]),
    )
    measured = truths.blindness(unbiased, items)
    np.testing.assert_allclose(measured.cost, loss / 0.86)
    np.testing.assert_allclose(measured.gain, loss / 0.86)  # no layer replaces another
    np.testing.assert_allclose(measured.low, measured.high)  # all items alike
    assert measured.layers == (3, 4)
    assert measured.total == pytest.approx((0.86, 0.86, 0.86))
    assert measured.accuracy[0] == pytest.approx(2 / 3)
    loss[2:5] = 0.01, 0.05, 0.03  # too little to speak of
    assert truths.blindness(unbiased, items).layers == ()


def test_the_truth_has_layers_that_replace_each_other(truths, unbiased, monkeypatch):
    """Layers 1 and 6 suffice each, so that hiding one of them costs nothing; 2 and 4 need each other."""
    items = mi.load_benchmark("listening").filter(condition="neutral").sample(3, seed=1)

    def margins(lalm, items, blinds):
        lost = [0.6 * ({1, 6} <= {*blind}) + 0.4 * bool({2, 4} & {*blind}) for blind in blinds]
        return 2.0 - np.array(lost)[:, None] * np.ones(len(items))

    monkeypatch.setattr(truths, "margins", margins)
    measured = truths.blindness(unbiased, items)
    np.testing.assert_allclose(measured.cost, [0, 0, 0.4, 0, 0.4, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(measured.gain, [0, 0.6, 0, 0, 0, 0, 0.6, 0], atol=1e-12)
    assert measured.layers == (1, 2, 4, 6)


@pytest.mark.acceptance
def test_planted_truth(study, tmp_path, capsys):
    """With a model that is hardly trained: the format is asserted, not the result."""
    study.main(tmp_path, "2", items=6, share=0.005, seed=0, as_json=True)
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # NaN is no JSON
    assert {row["model"] for row in result["rows"]} == {"penalty-1"}
    assert {row["criterion"] for row in result["rows"]} == {"window", *mi.fusion.CRITERIA}
    assert all(row["planted"] == [1] and 0 <= row["iou"] <= 1 for row in result["rows"])
    assert len(result["summary"]) == len(result["rows"])
    assert (tmp_path / "planted_truth.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "planted_truth_by_clips.csv").exists()
