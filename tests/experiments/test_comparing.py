"""Run.compare: the numbers are those of the statistics, and nothing is left out unseen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mata_interp.errors import ArgumentError
from mata_interp.experiments.comparing import compare_conditions
from mata_interp.statistics import holm, max_t, paired_effect

OPTIONS = ["a", "b", "c", "d"]


def records(items: int = 60, gains: dict[str, float] | None = None) -> pd.DataFrame:
    """Answers under a baseline and two conditions, 4 options, two domains, two items a clip."""
    rng = np.random.default_rng(0)
    luck = rng.uniform(size=items)
    rows: list[dict[str, Any]] = []
    for condition, gain in (gains or {"baseline": 0.0, "mata": 0.3, "sham": 0.0}).items():
        noise = rng.normal(0, 0.1, items)
        for i in range(items):
            margin = 0.5 + gain - luck[i] + noise[i]
            wrong = OPTIONS[1 + int(10 * abs(noise[i])) % 3]
            rows.append({
                "item": f"{i:03d}", "condition": condition, "cluster": f"clip {i // 2}",
                "domain": ("sound", "speech")[(i // 2) % 2], "answer": "a", "choices": OPTIONS,
                "correct": margin > 0, "margin": margin, "predicted": "a" if margin > 0 else wrong,
                "dose_kl": np.nan if condition == "baseline" else 0.5,
            })  # fmt: skip
    return pd.DataFrame(rows)


def test_rows_are_paired_effects():
    frame = records()
    table = compare_conditions(frame, "baseline").set_index("condition")
    wide = frame.pivot(index="item", columns="condition", values="correct").astype(float)
    clips = frame.drop_duplicates("item").sort_values("item")["cluster"].tolist()
    for name in ("mata", "sham"):
        effect = paired_effect(wide["baseline"], wide[name], clusters=clips)
        row = table.loc[name]
        assert (row["n"], row["clips"], row["fixed"], row["broken"]) == (60, 30, effect.fixed, effect.broken)
        assert (row["difference"], row["low"], row["p"]) == (effect.difference, effect.low, effect.p)
    assert (table["chance"] == 0.25).all()
    assert (table["dose_kl"] == 0.5).all()
    changes = np.c_[wide["mata"] - wide["baseline"], wide["sham"] - wide["baseline"]]
    np.testing.assert_allclose(table["p_adjusted"], max_t(changes, clips).p)


def test_churn_is_counted_apart_from_accuracy():
    frame = records(4)
    frame.loc[frame["condition"] != "sham", "predicted"] = ["a", "b", "b", "c"] * 2
    frame.loc[frame["condition"] == "sham", "predicted"] = ["b", "a", "c", "c"]
    frame["correct"] = frame["predicted"] == "a"
    row = compare_conditions(frame, "baseline", correct="none").set_index("condition").loc["sham"]
    assert (row["fixed"], row["broken"], row["churned"], row["churn"]) == (1, 1, 1, 0.75)


@pytest.mark.parametrize("correct", ["max-t", "romano-wolf", "holm", "bh"])
def test_strata_are_one_family(correct):
    table = compare_conditions(records(), "baseline", by="domain", score="margin", correct=correct)
    assert table[["condition", "domain"]].values.tolist() == [
        ["mata", "sound"], ["sham", "sound"], ["mata", "speech"], ["sham", "speech"],
    ]  # fmt: skip
    assert table["n"].tolist() == [30] * 4
    assert (table["p_adjusted"] >= table["p"] * 0.8).all()  # drawn sign patterns scatter
    assert (table.loc[table["condition"] == "mata", "p_adjusted"] < 0.05).all()
    if correct == "holm":
        np.testing.assert_allclose(table["p_adjusted"], holm(table["p"]))


def test_items_without_a_value_are_counted():
    frame = records()
    frame.loc[frame["item"].isin(["001", "002"]) & (frame["condition"] == "mata"), "margin"] = np.nan
    table = compare_conditions(frame, "baseline", score="margin", conditions=["mata"])
    assert table[["n", "left_out"]].values.tolist() == [[58, 2]]


WRONG = [
    ({"baseline": "base"}, "'baseline'"),
    ({"conditions": ["mate"]}, "'mata'"),
    ({"by": "domian"}, "'domain'"),
    ({"correct": "holms"}, "'holm'"),
    ({"score": "margins"}, "'margin'"),
]


@pytest.mark.parametrize(("options", "nearest"), WRONG)
def test_what_does_not_exist_is_refused_with_the_nearest_name(options, nearest):
    with pytest.raises(ArgumentError, match=nearest):
        compare_conditions(records(), **{"baseline": "baseline", **options})


def test_an_unfinished_run_is_refused():
    frame = records()
    with pytest.raises(ArgumentError, match="'005'"):
        compare_conditions(frame.drop(frame.index[65]), "baseline")
