"""The replication, end to end on records of MMAU and MMAR in their own format and shipped sounds."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import mata_interp as mi
from mata_interp.experiments import load_run
from mata_interp.statistics import holm
from tests.support.analyses import import_analysis, run_analysis
from tests.support.downloaded import own_records, real_records, write_with_scenes

SMALL = [
    "--model", "organism", "--rules", "abs,add", "--phases", "both", "--prompts", "options",
    "--random-draws", "1",
    "--max-new-tokens", "4", "--alpha", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def own_file(tmp_path_factory):
    """Twelve items of the shipped benchmark in MMAU's format."""
    folder = tmp_path_factory.mktemp("mmau")
    return write_with_scenes(folder, "mmau", own_records("mmau", 12)), folder / "audio"


def test_names_of_benchmarks(own_file):
    file, _ = own_file
    named = import_analysis("replicate_mata")._named
    assert named(str(file)) == (file.stem, str(file))
    assert named(f"mmau={file}") == ("mmau", str(file))
    assert named("listening") == ("listening", "listening")


@pytest.mark.acceptance
def test_every_combination_is_one_family(own_file, tmp_path):
    file, audio = own_file
    options = ["--benchmark", f"mmau={file}", "--audio-root", f"mmau={audio}", "--out", str(tmp_path)]
    result = run_analysis("replicate_mata.py", *SMALL, *options)
    effects = pd.DataFrame(result["effects"])
    of_mata = effects.loc[effects["role"] == "MATA"]
    # 2 rules x 2 ends of the relative layers, with generated answers (two scores) and scored options
    readings = len({mi.published_layers(8, "relative", end) for end in ("inclusive", "exclusive")})
    assert len(of_mata) == 2 * readings * 3
    assert of_mata["p_adjusted"].tolist() == pytest.approx(holm(of_mata["p"]).tolist())
    assert effects.loc[effects["role"] == "control", "p_adjusted"].isna().all()
    assert set(effects.loc[effects["role"] == "control", "condition"].str.split(" ").str[0]) == {
        "text", "random", "MATA",
    }  # fmt: skip
    assert (effects["low"] <= effects["difference"]).all()
    page = (tmp_path / "replication.html").read_text("utf-8")
    assert "<script" not in page
    assert page.count("<svg") == 6  # two scores of generated answers, one of scored options; wide and narrow
    assert "64.8" in page  # a published number
    records = load_run(tmp_path / "mmau" / "options").records
    accuracies = pd.DataFrame(result["accuracies"])
    over_all = accuracies[(accuracies["domain"] == "all") & accuracies["condition"].eq("baseline (scored)")]
    scored = records.loc[records["condition"] == "baseline (scored)", "correct"]
    assert over_all["option_aware"].item() == pytest.approx(scored.mean())
    again = run_analysis("replicate_mata.py", *SMALL, *options)  # everything is there: nothing is computed
    assert again == result


def test_readings_of_the_published_layers():
    replication = import_analysis("support.replication")
    deep = type("Deep", (), {"attention_layers": tuple(range(32))})
    measured = replication.layer_conventions(deep, [])
    assert measured["absolute-inclusive"] == tuple(range(10, 21))
    assert measured["absolute-exclusive"] == tuple(range(10, 20))
    assert len(set(measured.values())) == len(measured) == 4
    with pytest.raises(mi.errors.ArgumentError, match="absolute-inclusive"):
        replication.layer_conventions(deep, ["absolute-inclusiv"])


@pytest.mark.acceptance
@pytest.mark.parametrize("benchmark", ["mmau", "mmar"])
def test_real_questions(benchmark, tmp_path):
    records = real_records(benchmark, 24)
    file = write_with_scenes(tmp_path, benchmark, records)
    options = ["--benchmark", f"{benchmark}={file}", "--audio-root", f"{benchmark}={tmp_path / 'audio'}"]
    result = run_analysis("replicate_mata.py", *SMALL, *options, "--out", str(tmp_path / "out"))
    assert {row["benchmark"] for row in result["effects"]} == {benchmark}
    assert all(row["n"] > 0 for row in result["accuracies"])
    assert json.loads((tmp_path / "out" / benchmark / "options" / "manifest.json").read_text())["excluded"]
