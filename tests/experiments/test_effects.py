"""Which comparisons are made, what is corrected, and what the answer says of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mata_interp.experiments.answer import answer_text, verdict
from mata_interp.experiments.effects import comparisons, effects_table
from mata_interp.statistics import holm, paired_effect

CONDITIONS = ("baseline", "mata", "mata on text", "mata in random layers 1", "mata in random layers 2",
              "other audio", "mata + other audio", "no audio")  # fmt: skip
CHOSEN = {"layers": [3, 4], "alpha": 0.3, "rule": "abs"}
MATCHED = {"kl": 0.201, "target_kl": 0.2}


def records(
    gain: float, captions=("conflict", "congruent", "neutral"), clips: int = 120, sham_gain: float = 0.0
) -> Any:
    """Records in which a condition has 50 % right plus its gain, the gain on conflict items alone."""
    rng = np.random.default_rng(0)
    gains = {"mata": gain, "mata on text": sham_gain}
    rows = []
    for condition in CONDITIONS:
        for caption in captions:
            for clip in range(clips):
                luck = np.random.default_rng([clip, len(caption)]).uniform()  # the same under every condition
                shift = gains.get(condition, 0.0) if caption == "conflict" else 0.0
                margin = 2.0 * (0.5 + shift - luck) + rng.normal(0, 1e-3)
                rows.append({
                    "item": f"{clip}-{caption}", "condition": condition, "cluster": f"clip {clip}",
                    "domain": ("sound", "speech")[clip % 2], "caption_condition": caption, "answer": "x",
                    "correct": margin > 0, "margin": margin,
                    "correct_normalised": margin > 0, "margin_normalised": margin,
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_the_primary_comparison_is_fixed_and_comes_first():
    table = effects_table(records(0.2), seed=0)
    first = table[0]
    assert (first["family"], first["before_condition"], first["after_condition"]) == (
        "primary",
        "baseline",
        "mata",
    )
    assert (first["subset"], first["column"]) == ({"caption_condition": "conflict"}, "correct")
    assert [row["family"] for row in table].count("primary") == 1


def test_effects_are_those_of_the_statistics_on_items_paired_by_id():
    frame = records(0.2)
    shuffled = frame.sample(frac=1, random_state=1)
    row = effects_table(shuffled, seed=5)[0]
    conflict = frame[frame["caption_condition"] == "conflict"].sort_values("item")
    before, after = (conflict[conflict["condition"] == name] for name in ("baseline", "mata"))
    direct = paired_effect(
        before["correct"].to_numpy(float),
        after["correct"].to_numpy(float),
        "binary",
        before["cluster"],
        seed=5,
    )
    assert {name: row[name] for name in direct.to_dict()} == direct.to_dict()
    assert (row["n"], row["n_clusters"]) == (120, 120)
    assert row["difference"] == pytest.approx(0.2, abs=0.08)


def test_holm_runs_over_the_hypotheses_on_mata_and_not_over_the_shams():
    table = effects_table(records(0.05), seed=0)
    family = [row for row in table if row["family"] in ("primary", "mata")]
    asked = {(row["subset"]["caption_condition"], row["kind"]) for row in family}
    assert asked == {(c, k) for c in ("conflict", "neutral", "congruent") for k in ("binary", "margin")}
    assert len(family) == 6
    assert [row["p_holm"] for row in family] == holm([row["p"] for row in family]).tolist()
    assert all(row["p_holm"] is None for row in table if row not in family)


def test_every_sham_stands_against_its_own_baseline_and_against_mata():
    table = effects_table(records(0.2), seed=0)
    shams = {(row["after_condition"], row["before_condition"]) for row in table if row["family"] == "sham"}
    edited = {"mata on text", "mata in random layers 1", "mata in random layers 2"}
    assert shams == {
        *((name, "baseline") for name in edited),
        *(("mata", name) for name in edited),
        ("mata + other audio", "other audio"),
    }
    described = [row for row in table if row["family"] == "descriptive"]
    assert {row["subset"].get("domain") for row in described} == {None, "sound", "speech"}
    assert {row["after_condition"] for row in described} == {"mata", "other audio", "no audio"}
    names = [(row["name"], json.dumps(row["subset"]), row["column"]) for row in table]
    assert len(set(names)) == len(names)


def test_without_conflict_items_the_primary_is_over_all_items():
    table = effects_table(records(0.2, captions=("",)), seed=0)
    assert table[0]["subset"] == {}
    assert [row["kind"] for row in table if row["family"] in ("primary", "mata")] == ["binary", "margin"]
    text = answer_text(table, CHOSEN, MATCHED, 60)
    assert text.startswith("On 120 items (120 clips), MATA")
    assert "contradicts" not in text


def test_items_without_a_known_answer_are_left_out():
    frame = records(0.2)
    frame = frame.astype({"correct": object})
    frame.loc[frame["item"] == "7-conflict", ["answer", "correct", "margin"]] = [None, None, np.nan]
    assert effects_table(frame, seed=0)[0]["n"] == 119


def test_a_run_without_shams_still_has_its_comparisons():
    frame = records(0.2)
    few = list(comparisons(frame[frame["condition"].isin(["baseline", "mata"])]))
    assert {(c.after, c.before) for c in few} == {("mata", "baseline")}


@pytest.mark.parametrize(
    ("gain", "judged", "said"),
    [
        (0.25, "helps", "On these items MATA helps."),
        (-0.25, "hurts", "On these items MATA hurts."),
        (0.0, "undetected", "No difference is detectable: the data are compatible with anything from"),
    ],
)
def test_the_answer_is_honest_whichever_way_it_falls(gain, judged, said):
    table = effects_table(records(gain), seed=0)
    assert verdict(table[0]) == judged
    text = answer_text(table, CHOSEN, MATCHED, 60)
    assert said in text
    assert text.startswith("On 120 items whose caption contradicts the sound (120 clips), MATA (rule abs, ")
    assert "alpha 0.3, layers 3\u20134, chosen on 60 other clips" in text
    assert "95 % interval" in text
    assert f"{table[0]['fixed']} wrong answers put right, {table[0]['broken']} right ones broken" in text
    assert "In 2 draws of random layers" in text
    assert "Without any audio accuracy is" in text
    assert "nan" not in text.lower()


def test_the_answer_says_when_the_sham_does_as_well():
    table = effects_table(records(0.25, sham_gain=0.25), seed=0)
    assert "MATA cannot be told apart from that" in answer_text(table, CHOSEN, MATCHED, 60)
    table = effects_table(records(0.25), seed=0)
    assert "MATA does detectably better than that" in answer_text(table, CHOSEN, MATCHED, 60)


def test_a_verdict_needs_both_the_interval_and_the_test():
    assert verdict({"p": 0.01, "low": 0.02, "high": 0.1}) == "helps"
    assert verdict({"p": 0.06, "low": 0.001, "high": 0.1}) == "undetected"
    assert verdict({"p": 0.04, "low": -0.001, "high": 0.1}) == "undetected"
    assert verdict({"p": 0.01, "low": None, "high": None}) == "undetected"


def test_the_answer_says_when_the_sham_could_not_be_matched():
    table = effects_table(records(0.25), seed=0)
    assert "The same rule on text, at equal strength, changes" in answer_text(table, CHOSEN, MATCHED, 60)
    text = answer_text(table, CHOSEN, {"kl": 0.1, "target_kl": 0.2}, 60)
    assert "at the nearest strength there is (mean KL 0.1 against 0.2 nats), changes" in text


def test_the_answer_says_when_only_the_comparison_fixed_beforehand_counts():
    table = effects_table(records(0.25), seed=0)
    assert "On these items MATA helps.\n" in answer_text(table, CHOSEN, MATCHED, 60)
    table[0] |= {"p": 0.03, "p_holm": 0.18}
    text = answer_text(table, CHOSEN, MATCHED, 60)
    assert "MATA helps, by the comparison fixed beforehand; corrected, it would not count." in text


def test_the_official_score_is_compared_beside_the_other_where_all_items_have_it():
    frame = records(0.2).assign(official=lambda f: f["margin"] > 0.5)
    table = effects_table(frame, seed=0)
    rows = [row for row in table if row["column"] == "official"]
    assert [row["subset"]["caption_condition"] for row in rows] == ["conflict", "neutral", "congruent"]
    assert {(row["family"], row["p_holm"]) for row in rows} == {("descriptive", None)}
    mata = frame[(frame["condition"] == "mata") & (frame["caption_condition"] == "conflict")]
    assert rows[0]["after"] == pytest.approx((mata["margin"] > 0.5).mean())
    assert rows[0]["name"] == "mata vs baseline, official score"
    few = effects_table(frame.assign(official=None), seed=0)
    assert few == [row for row in table if row not in rows]
