"""The headline of a study claims a direction only where interval, test and Holm's correction show it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mata_interp.experiments.effects import Effects
from mata_interp.experiments.headline import headline_text
from mata_interp.experiments.number_text import nats, percent_pair
from mata_interp.experiments.planned_comparisons import Comparison
from mata_interp.experiments.study_result import (
    Configuration,
    LayerOrigin,
    Selection,
    ShamMatch,
    SweepQuality,
    SweepScore,
)
from mata_interp.statistics.choices import REFUSED

from .test_verdicts import results

CHOSEN = Configuration((4, 5, 6, 7), 2.0, "abs")
CONFLICT, CONGRUENT = {"caption_condition": "conflict"}, {"caption_condition": "congruent"}


def selection(edges: tuple[str, ...] = (), tested_clips: int = 0) -> Selection:
    origin = LayerOrigin((4, 5), "a model", 9, 9, tested_clips) if tested_clips else None
    return Selection(
        items=20, clips=20, grid_items=20, grid_caption_condition="conflict", grid_chance=0.25,
        layer_origin=origin, grid=(), baseline=SweepScore(0.0, 0.3, 20), chosen=CHOSEN, edges=edges,
        reason="", sweep=SweepQuality(0.0, 0, ""), sham=ShamMatch("text", (4,), 1.0, 0.2, 0.2, CHOSEN, 9, ()),
        random_layers=(), trace_items=0, trace_share_by_layer=(),
    )  # fmt: skip


def primary(row):
    comparison = Comparison("baseline", "mata", "baseline", "mata", CONFLICT, "binary", "primary")
    return replace(row, comparison=comparison)


@given(results("binary"), st.lists(results(), max_size=4))
def test_a_direction_is_claimed_only_where_all_three_show_it(row, rest):
    row = primary(row)
    text = headline_text(Effects((row, *rest)), selection())
    shown = row.verdict if row.p_holm < 0.05 else "undetected"
    first = re.split(r";| MATA also", text)[0]
    assert ("raises accuracy" in first) == (shown == "helps")
    assert ("lowers accuracy" in first) == (shown == "hurts")
    refused = row.effect.p_method == REFUSED
    assert ("not tested" in first) == refused
    assert ("no d" in first) == (shown == "undetected" and not refused)  # no (detectable) difference
    harms = [other for other in rest if other.verdict == "hurts" and other.p_holm < 0.05]
    gains = [other for other in rest if other.verdict == "helps" and other.p_holm < 0.05]
    assert text.count("when the caption is right") == len(harms) + len(gains)
    assert text.count("costs confidence") == sum(other.comparison.kind == "margin" for other in harms)
    assert ("adds confidence" in text) == any(other.comparison.kind == "margin" for other in gains)
    assert ("MATA also" in text) == bool(gains)
    for other in gains:
        if other.comparison.kind == "margin":
            assert f"({nats(other.effect.difference)} nats)" in text
    assert "nan" not in text


@given(results("binary"), results("binary", "sham_text"), results("binary", "mata", "sham_text"))
def test_it_compares_with_the_sham_on_text_with_an_interval(row, sham, against):
    main = {"subset": CONFLICT, "family": "sham"}
    sham, against = (replace(r, comparison=replace(r.comparison, **main)) for r in (sham, against))
    text = headline_text(Effects((primary(row), sham, against)), selection())
    assert f"{100 * against.effect.difference:+.1f}".replace("-", "\u2212") in text
    assert ("depends on which tokens" in text) == (
        row.verdict == "helps" == against.verdict and sham.verdict != "helps"
    )


@given(results("binary"))
def test_what_weakens_the_answer_is_said(row):
    effects = Effects((primary(row),))
    assert "edge" not in headline_text(effects, selection())
    assert "the largest alpha" in headline_text(effects, selection(edges=("the largest alpha",)))
    assert "exploratory" in headline_text(effects, selection(tested_clips=2))


@given(st.floats(0, 1), st.floats(0, 1))
def test_two_rates_look_different_where_they_are(before, after):
    shown = percent_pair(before, after)
    assert all(re.fullmatch(r"\d+(\.\d)?", part) for part in shown)
    if abs(after - before) > 0.002:
        assert shown[0] != shown[1]


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [(0.3775, 0.645, ("38", "65")), (0.381, 0.384, ("38.1", "38.4")), (0.5, 0.5, ("50", "50"))],
)
def test_rates_of_a_headline(before, after, shown):
    assert percent_pair(before, after) == shown
