"""The comparison of methods: equal budgets, costs that are counted, and the analysis at a small size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mata_interp as mi
from mata_interp.errors import BenchmarkError
from mata_interp.interventions import catalogue as c
from tests.support.analyses import import_analysis, run_analysis


@pytest.fixture(scope="module")
def method_grids() -> Any:
    return import_analysis("support.method_grids")


@pytest.fixture(scope="module")
def effects() -> Any:
    return import_analysis("support.method_effects")


@pytest.fixture(scope="module")
def inputs(method_grids) -> Any:
    return method_grids.GridInputs(
        layer_sets=((3, 4), (4, 5, 6, 7), tuple(range(8))),
        single=(0, 1, 3, 4, 6, 7),
        last=7,
        sinks=((1, 2), 3.0),
        specialists=(4, 5),
        heads={1: (3,), 4: (0, 1), 6: (2,)},
        text_heads={layer: (0, 1) for layer in range(8)},
    )


def test_every_method_has_the_same_budget(method_grids, inputs):
    made = method_grids.grids(inputs)
    assert set(made) == set(method_grids.GRIDS)
    for name, grid in made.items():
        assert len(grid) == method_grids.BUDGET, name
        assert len(set(grid)) == len(grid), name
    assert set(method_grids.grids(inputs, ["AAD", "VAF"])) == {"AAD", "VAF"}
    with pytest.raises(BenchmarkError, match="No method 'AAB'"):
        method_grids.grids(inputs, ["AAB"])


def test_costs_are_counted_tokens():
    cost = import_analysis("support.method_costs").relative_cost
    lalm = mi.LALM.from_pretrained("organism")
    item = mi.load_benchmark("listening")[0]
    prompt = lalm.prompt(item).width
    without = lalm.prompt(item, audio=None).width
    assert cost(lalm, item, mi.Mata(1.0, [3])) == {"prompt": 1.0, "token": 1.0}
    assert cost(lalm, item, c.Aad()) == {"prompt": 1 + without / prompt, "token": 2.0}
    assert cost(lalm, item, c.GatedScaling([3])) == {"prompt": 2.0, "token": 1.0}
    assert cost(lalm, item, c.Steering([3])) == {"prompt": 2 + without / prompt, "token": 1.0}


def _records(rng, names) -> pd.DataFrame:
    rows = []
    for n in range(60):
        for condition in ("conflict", "neutral"):
            base = rng.normal()
            for name, shift in names.items():
                logprob = np.array([base + shift * (condition == "conflict"), 0.0])
                rows.append(
                    {
                        "item": f"{n} {condition}", "condition": name, "cluster": str(n // 2),
                        "caption_condition": condition, "answer": "a", "logprob": logprob,
                        "correct": bool(logprob[0] > 0), "margin": logprob[0] - logprob[1],
                        "dose_kl": 0.1 if name == "good" else np.nan, "dose_left_alone": np.nan,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def test_the_table_is_sorted_by_the_lower_end_and_corrected(effects):
    names = {"baseline": 0.0, "bad": -0.5, "good": 1.0, "other audio": 0.0}
    names |= {f"{name}, other audio": 0.0 for name in ("good", "bad")}
    records = _records(np.random.default_rng(0), names)
    methods = {"bad": mi.Mata(0.1, [1]), "good": c.Hgai([1])}
    costs = {name: {"prompt": 1.0, "token": 1.0} for name in methods}
    rows = effects.table(records, methods, costs, 0)
    assert [row["method"] for row in rows] == ["good", "bad"]
    conflict = records[records["caption_condition"] == "conflict"]
    by_name = conflict.pivot(index="item", columns="condition", values="correct").astype(float)
    for row in rows:
        moved = by_name[row["method"]] - by_name["baseline"]
        assert row["accuracy"] == pytest.approx(moved.mean())
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
        assert row["p_holm"] >= row["accuracy_p"]
        assert (row["control"], row["harm"]["difference"]) == (0, 0)
    assert rows[0]["dose_kl"] == pytest.approx(0.1)
    assert rows[1]["dose_kl"] is None
    assert rows[0]["option_kl"] > rows[1]["option_kl"] > 0


def test_dropped_options_have_bounded_margins(effects):
    margins = pd.Series([np.inf, -np.inf, np.nan, 3.0])
    assert effects.bounded(margins).tolist() == [20.0, -20.0, 0.0, 3.0]


@pytest.mark.acceptance
def test_the_analysis_at_a_small_size(tmp_path):
    arguments = ["--items", "9", "--models", "organism", "--out", str(tmp_path), "--methods"]
    arguments.append("MATA abs,target share,scaling, one layer,scaling,AAD")
    result = run_analysis("rivals.py", *arguments)
    (model,) = result["models"]
    assert {row["method"] for row in model["methods"]} == {
        "MATA abs", "target share", "scaling, one layer", "scaling", "AAD",
    }  # fmt: skip
    assert [(row["before"], row["after"]) for row in model["contests"]] == [
        ("MATA abs", "scaling"), ("MATA abs", "target share"),
        ("target share, sham on text", "target share, rows of the sham"),
    ]  # fmt: skip
    lows = [row["accuracy_low"] for row in model["methods"]]
    assert lows == sorted(lows, reverse=True)
    for row in model["methods"]:
        tried = model["tried"][row["method"]]
        assert len(tried["margins"]) == result["budget"]
        assert tried["margins"][tried["best"]] == max(tried["margins"])
        assert row["items"] == 9
    target = next(row for row in model["methods"] if row["method"] == "target share")
    assert target["left_alone"] == 0
    assert target["dose_kl"] > 0
    assert (tmp_path / "rivals.png").read_bytes().startswith(b"\x89PNG")
    assert "| AAD |" in (tmp_path / "rivals.md").read_text()
    # selection and confirmation share no clip
    run = mi.load_run(tmp_path / "organism" / "run")
    swept = mi.load_sweep(tmp_path / "organism" / "selection.nc")
    assert not set(run.records["cluster"]) & set(swept["cluster"].values.tolist())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "organism").rglob("*.parquet")}
    assert json.dumps(run_analysis("rivals.py", *arguments)) == json.dumps(result)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "organism").rglob("*.parquet")}
