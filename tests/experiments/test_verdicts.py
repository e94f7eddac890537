"""Verdicts in words are never stronger than the interval and the test, whatever the numbers are."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mata_interp.experiments.effects import ComparisonResult, Effects
from mata_interp.experiments.no_harm import MARGINS, NoHarmClaim
from mata_interp.experiments.planned_comparisons import Comparison
from mata_interp.experiments.study_result import Configuration, ShamMatch
from mata_interp.experiments.verdicts import (
    control_words,
    effect_words,
    no_harm_words,
    other_findings,
    power_words,
    random_layers_words,
    sham_words,
)
from mata_interp.statistics import Effect, no_harm
from mata_interp.statistics.choices import REFUSED

UP = {"helps", "raises", "raise", "better", "gain"}
DOWN = {"hurts", "lowers", "lower", "harm", "harmful"}
NAN = math.nan
NUMBER = st.floats(-1, 1, allow_nan=False)
P = st.one_of(st.floats(0, 1), st.floats(0, 0.06))


@st.composite
def effects(draw, kind: str | None = None) -> Effect:
    """Any estimate in any interval with any p-value, also such as contradict each other."""
    kind = kind or draw(st.sampled_from(["binary", "margin"]))
    low, difference, high = sorted(draw(st.tuples(NUMBER, NUMBER, NUMBER)))
    if draw(st.integers(0, 9)) == 0:
        low = high = NAN
    p, p_method = draw(P), "a test"
    if draw(st.integers(0, 4)) == 0:  # chosen on the same clips
        p, p_method = NAN, REFUSED
    counts: dict[str, Any] = {}
    if kind == "binary":
        counts = {"fixed": draw(st.integers(0, 50)), "broken": draw(st.integers(0, 50))}
    return Effect(
        kind=kind, n=100, n_clusters=100, before=0.4, after=0.4 + difference, difference=difference, low=low,
        high=high, interval_method="", level=0.95, p=p, p_method=p_method, p_permutation=NAN, seed=0,
        **counts,
    )  # fmt: skip


@st.composite
def results(draw, kind: str | None = None, after: str = "mata", before: str = "baseline") -> ComparisonResult:
    effect = draw(effects(kind))
    comparison = Comparison(
        before, after, before, after, {"caption_condition": "congruent"}, effect.kind, "mata"  # type: ignore[arg-type]
    )  # fmt: skip
    p_holm = effect.p if math.isnan(effect.p) else min(1.0, effect.p * draw(st.integers(1, 6)))
    return ComparisonResult(
        comparison, effect, p_holm, 0.25, draw(st.one_of(st.just(NAN), st.floats(0.01, 0.5)))
    )


def directions(text: str) -> set[str]:
    """The directions that a text claims."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return {name for name, known in (("up", UP), ("down", DOWN)) if words & known}


def untested(text: str) -> bool:
    """Whether a text says that there is no p-value, and why."""
    return "no p-value" in text and "chosen on" in text


def shown(effect: Effect, p: float) -> set[str]:
    """The directions that interval and test show."""
    if not p < 0.05:
        return set()
    return {"up"} if effect.low > 0 else {"down"} if effect.high < 0 else set()


@given(results())
def test_an_effect_has_a_direction_only_where_interval_and_test_show_it(row):
    words = effect_words(row)
    assert untested(words) == (row.effect.p_method == REFUSED)
    assert directions(words) == shown(row.effect, row.effect.p)
    assert ("correction" in words) == (bool(shown(row.effect, row.effect.p)) and row.p_holm >= 0.05)
    assert "no effect" not in words.lower()
    assert "nan" not in words.lower()


@given(results())
def test_no_difference_always_comes_with_what_it_leaves_open(row):
    words = power_words(row)
    assert directions(words) == set()
    assert untested(words) == (row.effect.p_method == REFUSED)
    if untested(words):
        assert "detectable" not in words
        return
    if math.isnan(row.effect.low):
        assert "interval" in words
        return
    ends = re.findall(r"[+−]\d+\.\d+", words)
    scale, digits = (100, 1) if row.effect.kind == "binary" else (1, 2)
    expected = [f"{scale * end:+.{digits}f}".replace("-", "−") for end in (row.effect.low, row.effect.high)]
    assert ends == expected
    size = f"{scale * row.detectable:.{digits}f}"
    assert math.isnan(row.detectable) or f"{size} {'points' if scale == 100 else 'nats'}" in words


@given(st.lists(results(), max_size=6))
def test_every_significant_hypothesis_is_said_and_harm_comes_first(rows):
    significant = [row for row in rows if row.p_holm < 0.05]
    sentences = list(other_findings(Effects(tuple(rows))))
    assert len(sentences) == len(significant)
    claimed = [directions(sentence) for sentence in sentences]
    assert sorted(map(sorted, claimed)) == sorted(
        sorted(shown(row.effect, row.p_holm)) for row in significant
    )
    harms = [direction == {"down"} for direction in claimed]
    assert harms == sorted(harms, reverse=True)


@given(results("binary"), results("binary", "sham_text"), results("binary", "mata", "sham_text"))
def test_a_gain_through_audio_needs_mata_above_baseline_and_above_the_sham(mata, sham, against):
    words = sham_words(mata, sham, against)
    gains = mata.verdict == "helps" and against.verdict == "helps"
    if against.effect.p_method == REFUSED:
        assert untested(words)
        assert directions(words) == set()
        return
    assert ("depends on which tokens" in words) == (gains and sham.verdict != "helps")
    if against.verdict == "undetected":
        assert directions(words) == set()
        assert "not shown" in words
    if against.verdict == "helps":
        assert untested(words) == (mata.effect.p_method == REFUSED)
    if mata.verdict != "helps" and against.verdict == "helps" and not untested(words):
        assert "not detectably better than no intervention" in words
    if "harm" in words or "lowers" in words:
        assert sham.verdict == "hurts"


CONTROLS = [
    "sham_text", "sham_random_heads", "sham_random_signs", "mata_other_audio", "mata_silence",
    "mata_reversed_audio",
]  # fmt: skip


@given(st.sampled_from(CONTROLS), st.data())
def test_what_follows_from_a_control_is_said_exactly_where_its_interval_excludes_zero(role, data):
    row = data.draw(results("binary", role))
    words = control_words(row)
    assert bool(words) == (row.effect.low > 0 or row.effect.high < 0)
    refused = row.effect.p_method == REFUSED
    assert ("nothing follows" in words) == (bool(words) and row.effect.p >= 0.05)
    assert untested(words) == (bool(words) and refused)
    assert ("So " in words) == (bool(words) and row.effect.p < 0.05)


CHOSEN = Configuration((3, 4), 1.0, "abs")
LAYERS = st.sampled_from([(0, 1), (1, 2), (2, 3), (4, 5), (3, 5)])


@given(st.lists(st.tuples(results("binary", "sham_random_layers"), LAYERS), max_size=5))
def test_random_layers_speak_for_other_layers_only_where_they_share_none(pairs):
    draws = [row for row, _ in pairs]
    matches = [ShamMatch("audio", layers, 1.0, 0.2, 0.2, CHOSEN, 48, ()) for _, layers in pairs]
    words = " ".join(random_layers_words(draws, matches))
    helping = [match for row, match in zip(draws, matches, strict=True) if row.verdict == "helps"]
    apart = any(not match.shared_layers for match in helping)
    assert ("in other layers helps as well" in words) == apart
    assert ("not tested" in words) == (bool(helping) and not apart)
    assert ("depends on the layers" in words) == any(row.verdict == "hurts" for row in draws)
    undecided = [
        row
        for row in draws
        if row.verdict == "undetected"
        and (row.effect.low > 0 or row.effect.high < 0)
        and row.effect.p_method != REFUSED
    ]
    assert words.count("nothing follows") == len(undecided)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=300),
    st.integers(1, 6),
)
def test_no_harm_is_only_said_within_the_margin(values, family):
    before, after = zip(*values, strict=True)
    test = no_harm(before, after, MARGINS["binary"])
    comparison = Comparison("baseline", "mata", "baseline", "mata", {}, "binary", "no_harm")
    claim = NoHarmClaim(comparison, test, min(1.0, family * test.p_equivalence))
    claimed = no_harm_words(claim).startswith("No harm")
    assert claimed == (claim.verdict == "no harm")
    if claimed:
        assert test.equivalent
        assert -0.05 < test.low <= test.high < 0.05
    else:
        assert "not shown" in no_harm_words(claim)


@given(results(), st.floats(0.01, 0.2), st.booleans())
def test_no_harm_is_never_said_without_a_test(row, size, in_nats):
    kind = "margin" if in_nats else "binary"
    test = no_harm([0, 1] * 40, [0, 1] * 40, size, kind)
    test = replace(test, low=-size / 2, high=size / 2, p_inferior=NAN, p_superior=NAN, method=REFUSED)
    claim = NoHarmClaim(replace(row.comparison, kind=kind, family="no_harm"), test)
    words = no_harm_words(claim)
    assert untested(words)
    assert not words.startswith("No harm")
    assert claim.verdict == "not shown"


@given(st.lists(st.floats(-1, 1).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=60))
def test_no_harm_in_nats_is_one_sided(changes):
    test = no_harm([0.0] * len(changes), changes, MARGINS["margin"], "margin")
    comparison = Comparison("baseline", "mata", "baseline", "mata", {}, "margin", "no_harm")
    claim = NoHarmClaim(comparison, test, test.p_inferior)
    assert (claim.claim, claim.p == test.p_inferior or math.isnan(claim.p)) == ("non-inferiority", True)
    assert (claim.verdict == "no harm") == (test.low > -0.1 and test.p_inferior < 0.05)
    assert replace(claim, p_holm=0.2).verdict == "not shown"
    assert NoHarmClaim.from_dict(claim.to_dict()).verdict == claim.verdict
