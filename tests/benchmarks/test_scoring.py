"""Predictions files: denominators, averages, breakdowns, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mata_interp.benchmarks import (
    find_release,
    join_answers,
    published_claims,
    score_predictions,
    write_submission,
)
from mata_interp.benchmarks.reading import read_records
from mata_interp.benchmarks.scoring import RULES
from mata_interp.errors import BenchmarkError, ItemError

from .conftest import a_record, downloaded_file
from .plain_scores import official

ANSWERS = (
    "a bell",
    "a dog",
    "rain",
    "(B)",
    "B",
    "The answer is a bell.",
    "<answer>a bell</answer>",
    "hm",
    "",
)


def predictions(*texts: str | None) -> list[dict]:
    """Records in MMAU's format; None: nothing was predicted."""
    return [
        a_record(n, task=("sound", "music")[n % 2], **({} if text is None else {"model_output": text}))
        for n, text in enumerate(texts)
    ]


def test_both_scores_side_by_side():
    scores = score_predictions(predictions("a bell", "(B)", "rain", "hm", None, ""), "mmau")
    assert list(scores) == ["official", "option_aware"]
    official_scores, aware_scores = scores["official"], scores["option_aware"]
    assert (official_scores["accuracy"], official_scores["n"], official_scores["correct"]) == (1 / 5, 5, 1)
    assert (official_scores["no_prediction"], official_scores["key"]) == (1, "model_output")
    assert (
        aware_scores["accuracy"],
        aware_scores["n"],
        aware_scores["correct"],
        aware_scores["unparsed"],
    ) == (2 / 5, 5, 2, 2)
    assert aware_scores["unparsed_rate"] == 2 / 5
    assert official_scores["by"]["task"]["sound"] == {"accuracy": 1 / 2, "n": 2, "correct": 1}
    assert aware_scores["by"]["task"]["music"] == {"accuracy": 1 / 3, "n": 3, "correct": 1}
    assert list(official_scores["by"]) == ["task", "difficulty", "sub-category"]


def any_text(texts: Sequence[str | None]) -> bool:
    return any(text is not None for text in texts)


@settings(max_examples=100)
@given(st.lists(st.one_of(st.none(), st.sampled_from(ANSWERS)), min_size=1, max_size=12).filter(any_text))
def test_the_plain_reference_agrees(texts):
    records = predictions(*texts)
    scores = score_predictions(records, "mmau")["official"]
    same_as_plain(scores, official(records, "model_output", ["task", "difficulty", "sub-category"]))


def same_as_plain(scores, plain):
    assert [scores["correct"], scores["n"]] == plain["total"]
    for group, parts in scores["by"].items():
        assert {name: [part["correct"], part["n"]] for name, part in parts.items()} == plain[group]
        assert sum(part["n"] for part in parts.values()) == scores["n"]


def test_the_other_key_and_none_at_all():
    records = [a_record(0, model_prediction="a bell"), a_record(1)]
    official_scores = score_predictions(records, "mmau")["official"]
    assert (official_scores["key"], official_scores["n"], official_scores["no_prediction"]) == (
        "model_prediction",
        1,
        1,
    )
    both = [a_record(0, model_prediction="a bell", model_output="rain")]
    assert score_predictions(both, "mmau")["official"]["correct"] == 0
    with pytest.raises(BenchmarkError, match=r"model_output or model_prediction.*'answer', 'audio"):
        score_predictions([a_record(0)], "mmau")


def test_all_records_have_different_ids_or_none_has():
    """The official script reads no id; a record that comes twice would count twice there."""
    records = predictions("a bell", "rain", "a bell")
    without = [{key: value for key, value in record.items() if key != "id"} for record in records]
    assert score_predictions(without, "mmau") == score_predictions(records, "mmau")
    with pytest.raises(ItemError, match=r"item 'q0', field 'id'"):
        score_predictions([*records, records[0]], "mmau")
    with pytest.raises(ItemError, match=r"item 'record 2', field 'id'"):
        score_predictions([records[0], without[1]], "mmau")


def test_repeated_choices_and_lists_are_scored():
    choices = ["four", "nine", "fourteen", "fourteen"]
    records = [
        a_record(n, choices=choices, answer=answer, model_output=text, category=["Reasoning"])
        for n, (answer, text) in enumerate([("nine", "nine"), ("fourteen", "(D)"), ("fourteen", "fourteen")])
    ]
    scores = score_predictions(records, "mmau")
    assert (scores["official"]["correct"], scores["option_aware"]["correct"]) == (2, 3)


@pytest.mark.parametrize(
    ("record", "field", "problem"),
    [
        ({"model_output": None}, "model_output", "None"),
        ({"model_output": ["a"]}, "model_output", "['a']"),
        ({"model_output": "a", "answer": ""}, "answer", "''"),
        ({"model_output": "a", "choices": "a|b"}, "choices", "'a|b'"),
    ],
)
def test_bad_records_are_named(record, field, problem):
    with pytest.raises(ItemError, match="q1") as caught:
        score_predictions([a_record(0), a_record(1, **record)], "mmau")
    assert caught.value.field == field
    assert problem in str(caught.value)
    with pytest.raises(BenchmarkError, match="mmau, mmar"):
        score_predictions([a_record(0)], "mmsu")
    with pytest.raises(ItemError, match="record 2"):
        score_predictions([a_record(0), "x"], "mmau")  # pyright: ignore[reportArgumentType]


def test_answers_from_another_file():
    answers = [a_record(n) for n in range(3)]
    predicted = [
        {"id": "q2", "model_output": "a bell", "answer": "forged"},
        {"id": "q0", "model_output": "rain"},
    ]
    scores = score_predictions(join_answers(predicted, answers), "mmau")["official"]
    assert (scores["correct"], scores["n"], scores["no_prediction"]) == (1, 2, 1)
    with pytest.raises(ItemError, match="'q9'"):
        join_answers([{"id": "q9"}], answers)
    with pytest.raises(ItemError, match="'q0'"):
        join_answers([{"id": "q0"}, {"id": "q0"}], answers)
    with pytest.raises(ItemError, match="'record 1'"):
        join_answers([{"model_output": "rain"}], answers)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_submission_is_what_the_script_reads(tmp_path, suffix):
    records = [{k: v for k, v in a_record(n).items() if k != "answer"} for n in range(3)]
    file = tmp_path / f"submission.{suffix}"
    assert write_submission(records, {"q0": "a bell", "q2": "狗"}, "mmau", file) == 1
    back = read_records(file)
    assert [row.get("model_output") for row in back] == ["a bell", None, "狗"]
    assert [{k: v for k, v in row.items() if k != "model_output"} for row in back] == records
    with pytest.raises(ItemError, match="'q7'"):
        write_submission(records, {"q7": "a"}, "mmau", file)
    with pytest.raises(BenchmarkError, match="'mmsu'"):
        write_submission(records, {}, "mmsu", file)
    with pytest.raises(BenchmarkError, match=r"s\.csv'"):
        write_submission(records, {}, "mmau", tmp_path / "s.csv")
    with pytest.raises(BenchmarkError, match=r"cannot be written: .*No such file"):
        write_submission(records, {}, "mmau", tmp_path / "none" / f"s.{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert read_records(file) == back


@pytest.mark.parametrize(("name", "file"), [("mmau", "mmau-test-mini.json"), ("mmar", "MMAR-meta.jsonl")])
def test_real_records_score_as_the_plain_reference(name, file):
    """Right answers, sentences, letters, wrong options, silence and gaps in turn, over every record."""
    key, groups = RULES[name].keys[0], RULES[name].groups
    records = read_records(downloaded_file(file))
    for n, record in enumerate(records):
        wrong = next(c for c in record["choices"] if c != record["answer"])
        forms = [record["answer"], f"The answer is {record['answer']}.", "(A)", wrong, "", None]
        if (text := forms[n % 6]) is not None:
            record[key] = text
    scores = score_predictions(records, name)
    same_as_plain(scores["official"], official(records, key, list(groups)))
    assert scores["official"]["no_prediction"] == 166
    assert scores["official"]["n"] == scores["option_aware"]["n"] == 834


def test_all_right_on_the_real_files():
    for name, file, aware in (("mmau", "mmau-test-mini.json", 0.995), ("mmar", "MMAR-meta.jsonl", 1)):
        records = read_records(downloaded_file(file))
        predicted = [{**r, RULES[name].keys[0]: r["answer"]} for r in records]
        scores = score_predictions(predicted, name)
        assert scores["official"]["accuracy"] == 1
        assert scores["option_aware"]["accuracy"] >= aware  # single letters may be another option's


def test_published_claims_name_where_they_were_read():
    claims = published_claims("mmau", "test-mini")
    gains = [c.accuracy["average"] for c in claims if c.model == "Qwen2-Audio"]
    assert gains == [0.594, 0.648]
    assert {c.read for c in published_claims("mmar")} == {"source", "digest"}
    assert all(
        0 < a < 1 for name in ("mmau", "mmar") for c in published_claims(name) for a in c.accuracy.values()
    )
    assert published_claims("listening") == ()
    assert find_release("0" * 64) is None


def test_submission_text_is_plain_json(tmp_path):
    write_submission([a_record(0)], {"q0": "a bell"}, "mmau", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text("utf-8"))[0]["model_output"] == "a bell"
