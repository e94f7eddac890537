"""From the real files of MMAU and MMAR to scores and pages, by the commands that a user gives.

The questions are the benchmarks' own, the sounds scenes from the bank: what is right is left to chance, and
everything else is as it will be.
"""

from __future__ import annotations

import json

import pytest

from mata_interp.benchmarks import official_match, option_named
from mata_interp.experiments import load_run
from mata_interp.lalm import LALM
from tests.support.command_line import invoke
from tests.support.downloaded import FILES, QUIRKS, SPECIAL, own_records, real_records, write_with_scenes

pytestmark = pytest.mark.filterwarnings("ignore::mata_interp.errors.RunWarning")


def benchmark_in(folder, benchmark, n, extra=0):
    records = [*own_records(benchmark, extra), *real_records(benchmark, n)]
    file = write_with_scenes(folder, benchmark, records)
    return records, file, ["--benchmark", file, "--audio-root", folder / "audio"]


def unusable(records) -> set[str]:
    """Ids of the records that cannot be asked: a repeated or empty choice, a special token in the words."""
    bad = [record for name in ("a repeated choice", "an empty choice") for record in records
           if QUIRKS[name](record)]  # fmt: skip
    return {record["id"] for record in bad} | {r["id"] for r in records if SPECIAL in r["question"]}


def check_left_out(run, records) -> None:
    """Left out, counted, named; all others are there, whatever is odd about them."""
    assert {row.item for row in run.excluded} == unusable(records)
    reasons = {row.item: row.reason for row in run.excluded}
    assert "special token '<|AUDIO|>'" in reasons[records[-1]["id"]]


def answer_and_score(folder, benchmark, n):
    """The commands one after another; among the questions some of the organism's own, that it can answer."""
    records, file, where = benchmark_in(folder, benchmark, n, extra=8)
    run_folder, out = folder / "run", folder / "predictions.json"
    printed = json.loads(
        invoke(
            "run",
            *where,
            "--generate",
            "--max-new-tokens",
            "16",
            "--alpha",
            "1",
            "--out",
            run_folder,
            "--json",
        )
    )
    run = load_run(run_folder)
    check_left_out(run, records)
    assert set(run.records["item"]) == {record["id"] for record in records} - unusable(records)
    by_id = {record["id"]: record for record in records}
    for condition, rows in run.records.groupby("condition"):
        submit = ["--benchmark", benchmark, "--data", file, "--out", out, "--condition", condition, "--json"]
        counted = json.loads(invoke("benchmark", "submit", run_folder, *submit))
        assert counted["no_prediction"] == len(unusable(records))
        scores = json.loads(invoke("benchmark", "score", out, "--benchmark", benchmark, "--json"))
        official, option_aware = scores["official"], scores["option_aware"]
        assert (official["n"], official["no_prediction"]) == (len(rows), len(unusable(records)))
        assert official["correct"] == rows["official"].sum()
        assert official["accuracy"] == pytest.approx(printed["official"][condition])
        assert option_aware["correct"] == rows["correct"].sum()
        assert option_aware["unparsed"] == (~rows["parsed"].astype(bool)).sum()
        for row in rows.to_dict("records"):  # item by item, from the released record itself
            record = by_id[row["item"]]
            assert row["official"] == official_match(row["final_answer"], record["answer"], record["choices"])
            assert row["parsed"] == (option_named(row["final_answer"], record["choices"]) is not None)
        written = {record["id"]: record for record in json.loads(out.read_text("utf-8"))}
        key = official["key"]
        assert [{k: v for k, v in written[r["id"]].items() if k != key} for r in records] == records
    return run, records


@pytest.mark.parametrize("benchmark", FILES)
def test_answers_in_words_score_as_submitted(tmp_path, benchmark):
    run, _ = answer_and_score(tmp_path, benchmark, 16)
    for column in ("official", "parsed"):  # nothing is compared that is the same for every answer
        assert 0 < sum(run.records[column]) < len(run.records)
    assert min(run.records["prompt_tokens"]) > 0
    invoke("report", tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert 'id="published"' in page
    assert 'data-score="official"' in page


@pytest.mark.parametrize("benchmark", FILES)
def test_questions_beyond_ascii_and_many_options_reach_the_model(tmp_path, benchmark):
    records, _, _ = benchmark_in(tmp_path, benchmark, 24)
    for quirk in (
        "text beyond ASCII",
        *(f"{n} choices" for n in ((2, 5, 8) if benchmark == "mmau" else (2, 3, 6))),
    ):
        assert any(QUIRKS[quirk](record) and record["id"] not in unusable(records) for record in records), (
            quirk
        )
    assert benchmark != "mmau" or any(QUIRKS["a list as category"](record) for record in records)
    tokenizer = LALM.from_pretrained("organism").processor.tokenizer
    for record in records[:-1]:
        for text in (record["question"], *record["choices"]):
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.acceptance
@pytest.mark.parametrize(("benchmark", "n"), [("mmau", 60), ("mmar", 24)])
def test_a_whole_study(tmp_path, benchmark, n):
    """Records compared, and as many answered in words; the page has both scores and others' claims.

    Fewer of MMAR: the options of a question have up to some hundred letters, each a token of the organism,
    and a sweep runs all of them for each of 130 configurations.
    """
    records, _, where = benchmark_in(tmp_path, benchmark, n)
    out = tmp_path / "study"
    printed = json.loads(invoke("study", *where, "--out", out, "--json"))
    run = load_run(out)
    check_left_out(run, records)
    assert run.missing == 0
    assert run.study is not None
    assert run.study.selection.items + run.study.test.items == len(records) - len(unusable(records))
    assert 0 <= printed["primary"]["before"] <= 0.6  # foreign questions about other sounds: chance
    assert printed["primary"]["low"] <= printed["primary"]["difference"] <= printed["primary"]["high"]
    assert {len(choices) for choices in run.records["choices"]} >= {2, 4}
    assert None not in list(run.records["official"])
    page = (out / "report.html").read_text("utf-8")
    for part in ('id="published"', 'id="reliance"', ">official</th>", 'data-item="'):
        assert part in page
    (tmp_path / "words").mkdir()
    answer_and_score(tmp_path / "words", benchmark, n)
