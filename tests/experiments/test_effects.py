"""Which comparisons are made, what is corrected, and what the answer says of them."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mata_interp.errors import RunError
from mata_interp.experiments.answer import answer_text
from mata_interp.experiments.effects import Effects, effects_table
from mata_interp.experiments.number_text import change_text, percent_pair
from mata_interp.experiments.planned_comparisons import comparisons
from mata_interp.experiments.study_result import (
    Configuration,
    Selection,
    ShamMatch,
    SweepQuality,
    SweepScore,
)
from mata_interp.statistics import detectable_difference, holm, paired_effect

ROLES = {
    "baseline": "baseline",
    "mata": "mata",
    "mata on text": "sham_text",
    "mata in random layers 1": "sham_random_layers",
    "mata in random layers 2": "sham_random_layers",
    "other audio": "other_audio",
    "mata + other audio": "mata_other_audio",
    "no audio": "no_audio",
}
PRIMARY = {"caption_condition": "conflict"}
CHOSEN = Configuration(layers=(3, 4), alpha=0.3, rule="abs")
MATCHED = ShamMatch(
    keys="text", layers=(3, 4), alpha=0.4, kl=0.201, target_kl=0.2, mata=CHOSEN, items=48, tried=()
)
SELECTION = Selection(
    items=180,
    clips=60,
    grid_items=60,
    grid_caption_condition="conflict",
    grid_chance=0.5,
    layer_origin=None,
    grid=(),
    baseline=SweepScore(0.0, 0.5, 60),
    chosen=CHOSEN,
    edges=(),
    reason="",
    sweep=SweepQuality(0.0, 0, ""),
    sham=MATCHED,
    random_layers=(
        replace(MATCHED, keys="audio", layers=(0, 1)),
        replace(MATCHED, keys="audio", layers=(2, 3)),
    ),
    trace_items=0,
    trace_share_by_layer=(),
)


def table_of(frame: pd.DataFrame, seed: int = 0) -> Effects:
    return effects_table(frame, ROLES, seed)  # type: ignore[arg-type]


def answer_of(effects: Effects, sham: ShamMatch = MATCHED, **changes: Any) -> str:
    return answer_text(effects, replace(SELECTION, sham=sham, **changes))


def records(
    gain: float, captions=("conflict", "congruent", "neutral"), clips: int = 120, sham_gain: float = 0.0
) -> Any:
    """Records in which a condition has 50 % right plus its gain, the gain on conflict items alone."""
    rng = np.random.default_rng(0)
    gains = {"mata": gain, "mata on text": sham_gain}
    rows = []
    for condition in ROLES:
        for caption in captions:
            for clip in range(clips):
                luck = np.random.default_rng([clip, len(caption)]).uniform()  # the same under every condition
                shift = gains.get(condition, 0.0) if caption == "conflict" else 0.0
                margin = 2.0 * (0.5 + shift - luck) + rng.normal(0, 1e-3)
                rows.append({
                    "item": f"{clip}-{caption}", "condition": condition, "cluster": f"clip {clip}",
                    "domain": ("sound", "speech")[clip % 2], "caption_condition": caption, "answer": "x",
                    "choices": ["x", "y", "z", "w"] if caption == "neutral" else ["x", "y"],
                    "correct": margin > 0, "margin": margin,
                    "correct_normalised": margin > 0, "margin_normalised": margin,
                })  # fmt: skip
    return pd.DataFrame(rows)


@functools.cache
def effects_of(gain: float, captions=("conflict", "congruent", "neutral"), sham_gain: float = 0.0) -> Effects:
    """The effects of such records, computed once."""
    return table_of(records(gain, captions, sham_gain=sham_gain))


def test_the_primary_comparison_comes_first():
    table = effects_of(0.2)
    first = table[0].comparison
    assert (first.family, first.before_role, first.after_role) == ("primary", "baseline", "mata")
    assert (first.before, first.after) == ("baseline", "mata")
    assert (first.subset, first.column) == ({"caption_condition": "conflict"}, "correct")
    assert [row.comparison.family for row in table].count("primary") == 1
    assert table.primary is table[0]


def test_effects_are_those_of_the_statistics_on_items_paired_by_id():
    frame = records(0.2)
    row = table_of(frame.sample(frac=1, random_state=1), seed=5)[0]
    conflict = frame[frame["caption_condition"] == "conflict"].sort_values("item")
    before, after = (conflict[conflict["condition"] == name] for name in ("baseline", "mata"))
    direct = paired_effect(
        before["correct"].to_numpy(float),
        after["correct"].to_numpy(float),
        "binary",
        before["cluster"],
        seed=5,
    )
    assert row.effect == direct
    assert (row.effect.n, row.effect.n_clusters) == (120, 120)
    assert row.effect.difference == pytest.approx(0.2, abs=0.08)


def test_holm_runs_over_the_hypotheses_on_mata_and_not_over_the_shams():
    table = effects_of(0.05)
    tested = [row for row in table if row.comparison.family in ("primary", "mata")]
    hypotheses = {(row.comparison.subset["caption_condition"], row.comparison.kind) for row in tested}
    assert hypotheses == {(c, k) for c in ("conflict", "neutral", "congruent") for k in ("binary", "margin")}
    assert len(tested) == 6
    assert [row.p_holm for row in tested] == holm([row.effect.p for row in tested]).tolist()
    assert all(math.isnan(row.p_holm) for row in table if row not in tested)


def test_every_sham_is_compared_with_its_own_baseline_and_with_mata():
    table = effects_of(0.2)
    shams = {(row.comparison.after, row.comparison.before) for row in table.select(family="sham")}
    edited = {"mata on text", "mata in random layers 1", "mata in random layers 2"}
    assert shams == {
        *((name, "baseline") for name in edited),
        *(("mata", name) for name in edited),
        ("mata + other audio", "other audio"),
    }
    described = table.select(family="descriptive")
    assert {row.comparison.subset.get("domain") for row in described} == {None, "sound", "speech"}
    assert {row.comparison.after for row in described} == {"mata", "other audio", "no audio"}
    names = [(row.comparison.name, str(row.comparison.subset), row.comparison.column) for row in table]
    assert len(set(names)) == len(names)


def test_roles_decide_and_names_do_not():
    frame, names = records(0.2), {name: f"condition {n}" for n, name in enumerate(ROLES)}
    renamed = frame.assign(condition=frame["condition"].map(names))
    roles = {names[name]: role for name, role in ROLES.items()}
    for new, old in zip(effects_table(renamed, roles, 0), table_of(frame), strict=True):  # type: ignore[arg-type]
        assert new.effect == old.effect
        assert new.comparison.before == names[old.comparison.before]
        assert (new.comparison.before_role, new.comparison.after_role) == (
            old.comparison.before_role,
            old.comparison.after_role,
        )
    with pytest.raises(RunError, match="'mata'"):
        effects_table(frame, {"baseline": "baseline"}, 0)


def test_selections_and_the_frame_hold_the_same_rows():
    table = effects_of(0.2)
    shams = table.select(family="sham", after_role="sham_text", column="correct")
    assert [row.comparison.subset["caption_condition"] for row in shams] == [
        "conflict",
        "neutral",
        "congruent",
    ]
    frame = table.to_frame()
    assert len(frame) == len(table)
    assert frame["difference"].tolist() == [row.effect.difference for row in table]
    assert frame.loc[frame["family"] == "primary", "p"].item() == table[0].effect.p


def test_effects_round_trip_through_json():
    table = effects_of(0.2)
    text = json.dumps(table.to_dict(), allow_nan=False)
    assert Effects.from_dict(json.loads(text)) == table
    for kind, field in (("effects", "p_method"), ("effects", "detectable"), ("no_harm", "p_inferior")):
        damaged = json.loads(text)
        del damaged[kind][1][field]
        with pytest.raises(RunError, match=field):
            Effects.from_dict(damaged)
    with pytest.raises(RunError, match="no_harm"):
        Effects.from_dict({"effects": []})


def test_without_conflict_items_the_primary_is_over_all_items():
    table = effects_of(0.2, captions=("",))
    assert table[0].comparison.subset == {}
    kinds = [row.comparison.kind for row in table if row.comparison.family in ("primary", "mata")]
    assert kinds == ["binary", "margin"]
    assert "120 items (120 clips)" in answer_of(table)
    assert "contradicts" not in answer_of(table)


def test_items_without_a_known_answer_are_left_out():
    frame = records(0.2)
    frame = frame.astype({"correct": object})
    frame.loc[frame["item"] == "7-conflict", ["answer", "correct", "margin"]] = [None, None, np.nan]
    assert table_of(frame)[0].effect.n == 119


def test_a_run_without_shams_still_has_its_comparisons():
    frame = records(0.2)
    few = list(comparisons(frame[frame["condition"].isin(["baseline", "mata"])], ROLES))  # type: ignore[arg-type]
    assert {(c.after, c.before) for c in few} == {("mata", "baseline")}


@pytest.mark.parametrize(("gain", "verdict"), [(0.25, "helps"), (-0.25, "hurts"), (0.0, "undetected")])
def test_the_answer_has_the_numbers_of_the_primary_comparison_and_its_verdict(gain, verdict):
    table = effects_of(gain)
    effect = table[0].effect
    assert table[0].verdict == verdict
    text = answer_of(table)
    headline = text.partition("\n")[0]
    words = {"helps": "raises accuracy", "hurts": "lowers accuracy", "undetected": "no detectable difference"}
    assert [name for name, phrase in words.items() if phrase in headline] == [verdict]
    assert all(part in headline for part in percent_pair(effect.before, effect.after))
    assert "layers 3\u20134" in headline
    assert "120 items" in text
    assert "alpha 0.3, layers 3\u20134, chosen on 60 other clips" in text
    assert f"{100 * effect.before:.1f} % to {100 * effect.after:.1f} %" in text
    assert f"{effect.fixed} answers corrected, {effect.broken} broken" in text
    assert "2 draws of random layers" in text
    assert "nan" not in text.lower()


def test_the_headline_has_the_difference_of_the_changes_of_mata_and_the_sham():
    for sham_gain, verdict in ((0.25, "undetected"), (0.0, "helps")):
        table = effects_of(0.25, sham_gain=sham_gain)
        against = table.select(before_role="sham_text", after_role="mata", column="correct")[0]
        sham = table.select(family="sham", after_role="sham_text", column="correct", subset=PRIMARY)[0]
        assert against.verdict == verdict
        assert against.effect.difference == pytest.approx(table[0].effect.difference - sham.effect.difference)
        headline = answer_of(table).partition("\n")[0]
        assert change_text(against.effect) in headline
        assert ("not shown" in headline) == (verdict == "undetected")


def test_every_holm_significant_harm_is_in_the_headline():
    table = effects_of(0.25)
    row = next(
        r for r in table if r.comparison.kind == "margin" and "congruent" in r.comparison.subset.values()
    )
    harm = replace(
        row, effect=replace(row.effect, difference=-0.78, low=-0.93, high=-0.64, p=1e-4), p_holm=2e-4
    )
    harmed = Effects(tuple(harm if r is row else r for r in table), table.no_harm)
    headline, numbers = answer_of(harmed).split("\n\n")[:2]
    assert "costs confidence (\u22120.78 nats)" in headline
    assert "when the caption is right" in headline
    assert change_text(harm.effect) in numbers
    assert "Harm" in numbers
    assert "costs" not in answer_of(table)
    assert "Harm" not in answer_of(table)


def test_every_holm_significant_harm_to_accuracy_is_in_the_headline():
    table = effects_of(0.25)
    row = table.select(family="mata", column="correct", subset={"caption_condition": "congruent"})[0]
    worse = replace(row.effect, before=0.9, after=0.81, difference=-0.09, low=-0.14, high=-0.04, p=1e-4)
    harm = replace(row, effect=worse, p_holm=2e-4)
    harmed = Effects(tuple(harm if r is row else r for r in table), table.no_harm)
    headline, numbers = answer_of(harmed).split("\n\n")[:2]
    assert "when the caption is right, it lowers accuracy from 90 to 81 %" in headline
    assert change_text(worse) in numbers


def test_chance_stands_beside_accuracy():
    table = effects_of(0.2)
    assert table[0].chance == 0.5
    assert (
        table.select(family="mata", column="correct", subset={"caption_condition": "neutral"})[0].chance
        == 0.25
    )
    assert table.select(family="descriptive", column="correct", subset={})[0].chance == pytest.approx(
        1.25 / 3
    )
    assert all(math.isnan(row.chance) for row in table if row.comparison.kind == "margin")
    headline, numbers = answer_of(table).split("\n\n")[:2]
    assert "chance 50 %" in headline
    assert "chance 50.0 %" in numbers
    unknown = table_of(records(0.2).drop(columns="choices"))
    assert math.isnan(unknown[0].chance)
    assert "chance" not in answer_of(unknown)


def test_a_choice_at_the_edge_of_the_grid_is_said_in_the_headline():
    table = effects_of(0.2)
    assert "edge" not in answer_of(table)
    assert "that was tried" not in answer_of(table)
    edges = ("the largest alpha", "the widest window")
    headline, numbers = answer_of(table, edges=edges).split("\n\n")[:2]
    assert " and ".join(edges) in headline
    assert "that was tried" in headline
    assert f"edge of the grid: {' and '.join(edges)}" in numbers


def test_claims_of_no_harm_are_a_family_apart():
    table = effects_of(0.2)
    claims = {(c.comparison.subset["caption_condition"], c.comparison.kind, c.claim) for c in table.no_harm}
    assert claims == {
        (caption, *pair)
        for caption in ("neutral", "congruent")
        for pair in (("binary", "equivalence"), ("margin", "non-inferiority"))
    }
    assert {c.comparison.kind: c.test.margin for c in table.no_harm} == {"binary": 0.05, "margin": 0.1}
    assert [c.p_holm for c in table.no_harm] == holm([c.p for c in table.no_harm]).tolist()
    assert "no_harm" not in {row.comparison.family for row in table}
    everywhere = effects_of(0.2, captions=("",))
    assert [c.comparison.subset for c in everywhere.no_harm] == [{}, {}]


def test_hypotheses_say_what_they_could_have_detected():
    table = effects_of(0.2)
    effect = table[0].effect
    assert table[0].detectable == detectable_difference(120, (effect.fixed + effect.broken) / 120)
    known = [row for row in table if not math.isnan(row.detectable)]
    assert {row.comparison.family for row in known} <= {"primary", "mata", "sham"}
    assert {row.comparison.before_role for row in known if row.comparison.family == "sham"} == {"sham_text"}


def test_the_answer_names_draws_that_had_to_share_layers_with_the_window():
    assert "1 of the 2 draws had to share 1 of the 2 layers" in answer_of(effects_of(0.2))
    apart = tuple(replace(match, layers=(0, 1)) for match in SELECTION.random_layers)
    assert "had to share" not in answer_of(effects_of(0.2), random_layers=apart)


@pytest.mark.parametrize(
    ("p", "low", "high", "verdict"),
    [
        (0.01, 0.02, 0.1, "helps"),
        (0.01, -0.1, -0.02, "hurts"),
        (0.06, 0.001, 0.1, "undetected"),
        (0.04, -0.001, 0.1, "undetected"),
        (0.01, math.nan, math.nan, "undetected"),
    ],
)
def test_a_verdict_needs_both_the_interval_and_the_test(p, low, high, verdict):
    row = effects_of(0.2)[0]
    assert replace(row, effect=replace(row.effect, p=p, low=low, high=high)).verdict == verdict


def test_the_answer_says_whether_the_sham_was_matched():
    table = effects_of(0.25)
    assert "equal dose" in answer_of(table)
    unequal = answer_of(table, replace(MATCHED, kl=0.1))
    assert "equal dose" not in unequal
    assert "0.1 against 0.2 nats" in unequal


def test_the_answer_says_when_only_the_uncorrected_test_is_significant():
    table = effects_of(0.25)
    assert "Holm's correction" not in answer_of(table)
    first = replace(table[0], effect=replace(table[0].effect, p=0.03), p_holm=0.18)
    text = answer_of(Effects((first, *table[1:]), table.no_harm))
    assert "p = 0.03" in text
    assert "p = 0.18" in text
    assert "Holm's correction" in text


def test_the_official_score_is_compared_where_all_items_have_it():
    frame = records(0.2).assign(official=lambda f: f["margin"] > 0.5)
    table = table_of(frame)
    rows = table.select(column="official")
    assert [row.comparison.subset["caption_condition"] for row in rows] == [
        "conflict",
        "neutral",
        "congruent",
    ]
    assert {row.comparison.family for row in rows} == {"descriptive"}
    assert all(math.isnan(row.p_holm) for row in rows)
    mata = frame[(frame["condition"] == "mata") & (frame["caption_condition"] == "conflict")]
    assert rows[0].effect.after == pytest.approx((mata["margin"] > 0.5).mean())
    assert (rows[0].comparison.score, rows[0].comparison.before_role) == ("official", "baseline")
    few = table_of(frame.assign(official=None))
    assert list(few) == [row for row in table if row not in rows]
