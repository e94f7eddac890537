"""Stability of the window: sets of clips are disjoint, overlaps are IoU, and the analysis at a small size."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
import typer

import mata_interp as mi
from tests.support.analyses import import_analysis, run_analysis


@pytest.fixture(scope="module")
def stability() -> Any:
    return import_analysis("window_stability")


def test_sets_share_no_clip(stability):
    items = list(mi.load_benchmark("listening").filter(condition="neutral"))
    sets = stability.disjoint(items, 5, None, 0)
    clips = [{item.cluster for item in some} for some in sets]
    assert {len(some) for some in sets} == {len(some) for some in clips} == {len(clips[0])}
    assert not any(a & b for a, b in combinations(clips, 2))
    assert len(clips[0]) == len({item.cluster for item in items}) // 5
    assert clips != [{item.cluster for item in some} for some in stability.disjoint(items, 5, None, 1)]
    with pytest.raises(typer.BadParameter, match="are too few for 5 sets of 10000"):
        stability.disjoint(items, 5, 10_000, 0)


def test_a_set_without_a_window_overlaps_with_none(stability):
    rows = [{"window": [3, 4]}, {"window": [4]}, {"window": []}, {"window": []}]
    result = stability.overlaps(rows)
    assert result["iou"] == [0.5, 0, 0, 0, 0, 0]
    assert (result["mean_iou"], result["smallest_iou"]) == (pytest.approx(0.5 / 6), 0)


def test_the_analysis(tmp_path):
    arguments = ["--sets", "2", "--clips", "5", "--out", str(tmp_path)]
    result: Any = run_analysis("window_stability.py", *arguments)
    assert result == json.loads((tmp_path / "window_stability.json").read_text())
    profiles = [mi.FusionProfile.load(tmp_path / f"profile-{n}.json") for n in range(2)]
    assert [row["window"] for row in result["sets"]] == [list(profile.window) for profile in profiles]
    assert not {*profiles[0].chosen_on} & {*profiles[1].chosen_on}
