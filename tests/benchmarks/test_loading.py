"""Benchmarks from files."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from mata_interp import benchmarks
from mata_interp.benchmarks import load_benchmark
from mata_interp.errors import BenchmarkError

from .conftest import RATE, a_record, write_json


def test_mmaus_format(folder):
    records = [a_record(0, category=["Reasoning"]), a_record(1, choices=["x", "x"]), a_record(2)]
    file = write_json(folder / "mini.json", records)
    items = load_benchmark(file)
    assert (items.name, len(items)) == ("mini", 2)
    assert items.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert [(left.item, left.field) for left in items.excluded] == [("q1", "choices")]
    item = items[0]
    assert (item.id, item.audio, item.question) == ("q0", "./clips/0.wav", "Which sound comes first?")
    assert (item.choices, item.answer) == (("a dog", "a bell", "rain"), "a bell")
    assert (item.domain, item.kind, item.split, item.source) == ("sound", "order", "test-mini", "")
    assert item.extra == {"dataset": "Small", "category": "Reasoning", "difficulty": "easy"}
    assert item.load_audio(RATE).seconds == 0.5
    assert len(items.drop_undecodable(RATE)) == 2


def test_mmars_format(folder):
    record = {
        "id": "m0",
        "audio_path": "clips/0.wav",
        "question": "Who\u2028speaks?",
        "choices": ["Connor", "Derek"],
        "answer": "Connor ",
        "modality": "mix-sound-speech",
        "category": "Semantic Layer",
        "sub-category": "Content Analysis",
        "language": None,
        "source": "youtube",
        "url": "https://a.example/1",
        "cue": ["tone of voice"],
    }
    lines = [json.dumps(record, ensure_ascii=False), "", json.dumps(record | {"id": "m1"})]
    (folder / "meta.jsonl").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    items = load_benchmark("mmar", path=folder / "meta.jsonl")
    assert (items.name, len(items)) == ("mmar", 2)
    item = items[0]
    assert (item.domain, item.kind, item.source) == (
        "mix-sound-speech",
        "Content Analysis",
        "https://a.example/1",
    )
    assert (item.answer, item.question) == ("Connor", "Who\u2028speaks?")
    assert item.extra["source"] == "youtube"
    assert item.load_audio().seconds == 0.5


def test_the_format_of_the_benchmark_that_ships(folder):
    more = {
        "dataset": "listening",
        "split": "selection",
        "condition": "conflict",
        "caption": "A dog barks, then a bell rings.",
        "caption_answer": "a dog",
        "clip": "clip-0",
        "sources": ["dog.flac", "bell.flac"],
    }
    item = load_benchmark(write_json(folder / "listening.json", [a_record(0, **more)]))[0]
    assert (item.condition, item.caption_answer, item.split) == ("conflict", "a dog", "selection")
    assert item.caption == "A dog barks, then a bell rings."
    assert item.source == item.cluster == "clip-0"
    assert item.extra["sources"] == ["dog.flac", "bell.flac"]


def test_a_csv_with_other_column_names(folder):
    rows = [
        {"prompt": "Who?", "file": "clips/0.wav", "choices": "a dog|a bell", "right": "a bell"},
        {"prompt": "Who, then?", "file": "clips/1.wav", "choices": '["1, 2", "3|4"]', "right": "3|4"},
        {"prompt": "Who now?", "file": "clips/1.wav", "choices": '["1", ', "right": ""},
    ]
    with open(folder / "own.csv", "w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    fields = {"question": "prompt", "audio": "file", "answer": "right"}
    items = load_benchmark(folder / "own.csv", fields=fields)
    assert [item.choices for item in items] == [("a dog", "a bell"), ("1, 2", "3|4")]
    assert [item.answer for item in items] == ["a bell", "3|4"]
    assert [(left.item, left.field) for left in items.excluded] == [("record 3", "choices")]
    assert len(items.drop_undecodable(RATE)) == 2


def test_numbers_and_unknown_answers(folder):
    records = [
        a_record(0, id=17, choices=[1, 2, 2.5], answer=2),
        a_record(1, answer=""),
        {key: value for key, value in a_record(2).items() if key != "answer"},
    ]
    items = load_benchmark(write_json(folder / "a.json", records))
    assert (items[0].id, items[0].choices, items[0].answer) == ("17", ("1", "2", "2.5"), "2")
    assert [item.answer for item in items[1:]] == [None, None]


def test_a_subset(folder):
    records = [a_record(0), a_record(1, split="test"), a_record(2, split="test", choices=[])]
    file = write_json(folder / "a.json", records)
    mini = load_benchmark("mmau", path=file, subset="test-mini")
    assert ([item.id for item in mini], mini.excluded) == (["q0"], ())
    assert len(load_benchmark(file, subset="test").excluded) == 1
    with pytest.raises(BenchmarkError, match=r"'dev'.*'test', 'test-mini'"):
        load_benchmark(file, subset="dev")
    parts = [a_record(0, part="x"), a_record(1, part="y")]
    by_part = load_benchmark(write_json(folder / "b.json", parts), subset="y", fields={"split": "part"})
    assert [item.split for item in by_part] == ["y"]


def test_the_audio_root_is_the_files_folder_or_the_given_one(folder):
    outside = folder / "data"
    outside.mkdir()
    file = write_json(outside / "a.json", [a_record(0), a_record(1, audio_id="../clips/1.wav")])
    assert {left.item: left.reason for left in load_benchmark(file).drop_undecodable().excluded}.keys() == {
        "q0",
        "q1",
    }
    decodable = load_benchmark(file, audio_root=folder).drop_undecodable()
    assert [item.id for item in decodable] == ["q0"]
    assert "leads out of audio_root" in decodable.excluded[0].reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"id": 1', "cannot be read"),
        ("a.json", "[]", "empty"),
        ("a.json", '{"id": 1}', r"\['id'\]"),
        ("a.json", '{"a": [{}], "b": [{}]}', r"\['a', 'b'\]"),
        ("a.json", "7", "7"),
        ("a.json", '[{"id": 1, "answer": "a", "answer": "b"}]', "'answer'"),
        ("a.csv", "id,id\n1,2\n", r"\['id'\]"),
        ("a.parquet", "id", "Parquet"),
        ("a.json.gz", "[]", "cannot be read"),
        ("a.jsonl", '{"id": 1}\n{"id"', "cannot be read"),
        ("a.csv", "", "empty"),
        ("a.txt", "x", ".json, .jsonl, .csv"),
        ("a.json", b"\xff\xfe\xfd", "cannot be read"),
    ],
)
def test_files_that_hold_no_records(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark(tmp_path / name)


def test_names_and_columns_that_do_not_exist(folder):
    with pytest.raises(BenchmarkError, match=r"'listenin'.*'listening'"):
        load_benchmark("listenin")
    with pytest.raises(BenchmarkError, match=r"none\.json' cannot be read"):
        load_benchmark(folder / "none.json")
    file = write_json(folder / "a.json", [a_record(0)])
    with pytest.raises(BenchmarkError, match=r"'words'.*'answer', 'audio_id'"):
        load_benchmark(file, fields={"question": "words"})
    with pytest.raises(BenchmarkError, match=r"'sound'.*id, audio"):
        load_benchmark(file, fields={"sound": "audio_id"})


@pytest.fixture
def downloaded() -> Path:
    place = os.environ.get("MATA_BENCHMARK_DIR")
    if not place:
        pytest.skip("MATA_BENCHMARK_DIR is not set: it is the folder with the metadata of MMAU and MMAR")
    return Path(place)


def test_the_real_mmau(downloaded):
    items = load_benchmark("mmau", path=downloaded / "mmau-test-mini.json", subset="test-mini")
    assert (len(items), len(items.excluded)) == (973, 27)
    assert all(left.field == "choices" and "is repeated in" in left.reason for left in items.excluded)
    repeated = {left.item: left.reason for left in items.excluded}
    assert repeated["dd249c7f-9b01-4114-a7a8-c7d0f4a1ed19"].startswith("'fourteen' is repeated in ['four'")
    assert {type(item.extra["category"]) for item in items} == {str}
    assert Counter(item.domain for item in items).keys() == {"sound", "music", "speech"}
    assert all(item.answer in item.choices for item in items)


def test_the_real_mmar(downloaded):
    items = load_benchmark("mmar", path=downloaded / "MMAR-meta.jsonl")
    assert (len(items), len(items.excluded)) == (996, 4)
    assert all("is empty" in left.reason for left in items.excluded)  # an option without words
    lines = (downloaded / "MMAR-meta.jsonl").read_text("utf-8").splitlines()
    shared = [n for n in Counter(json.loads(line)["url"].strip() for line in lines).values() if n > 1]
    assert (sum(shared), len(shared)) == (138, 55)  # a URL is a recording: its items are not independent
    chosen, held = items.split("selection"), items.split("confirmation")
    assert not {item.source for item in chosen} & {item.source for item in held}
    assert len(chosen) + len(held) == 996


def test_the_benchmark_that_ships():
    file = Path(benchmarks.__file__).parent / "listening" / "listening.json"
    if not file.exists():
        pytest.skip("listening.json is not in this copy of the package")
    items = load_benchmark("listening")
    assert items.excluded == ()
    assert items.drop_undecodable(RATE).excluded == ()
    clips = Counter((item.split, item.source) for item in items)
    assert len([clip for clip in clips if clip[0] == "confirmation"]) >= 400
    assert len([clip for clip in clips if clip[0] == "selection"]) >= 200
    assert len({item.kind for item in items}) >= 8
    assert {item.domain for item in items} == {"sound", "speech", "music"}
    conditions = {"neutral", "congruent", "conflict"}
    conditions_by_source: dict[str, set[str]] = {}
    for item in items:
        conditions_by_source.setdefault(item.source, set()).add(item.condition)
        assert bool(item.caption) == (item.condition != "neutral")
        agrees = {"neutral": None, "congruent": True, "conflict": False}[item.condition]
        assert (item.caption_answer and item.caption_answer == item.answer) == agrees
    assert all(each == conditions for each in conditions_by_source.values())
    chosen, held = items.split("selection"), items.split("confirmation")
    assert len(chosen) + len(held) == len(items)


@pytest.mark.parametrize(
    "name",
    ["a.json", "A.JSON", "a.json.gz", "data.json", "lines.json", "list.jsonl", "a.jsonl.gz", "a.parquet"],
)
def test_one_benchmark_in_many_formats(folder, name):
    records = [a_record(n) for n in range(3)]
    lines = "\n".join(map(json.dumps, records)).encode()
    content = {
        "data.json": json.dumps({"data": records, "version": 1}).encode(),
        "lines.json": lines,
        "a.jsonl.gz": gzip.compress(lines),
        "a.json.gz": gzip.compress(json.dumps(records).encode()),
    }
    file = folder / name
    if name.endswith(".parquet"):
        pd.DataFrame(records).to_parquet(file)
    else:
        file.write_bytes(content.get(name, json.dumps(records).encode()))
    items = load_benchmark(file)
    plain = load_benchmark(write_json(folder / "plain.json", records))
    assert items.excluded == ()
    assert [(i.id, i.content_id, i.extra) for i in items] == [(i.id, i.content_id, i.extra) for i in plain]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("semicolon.csv", "id;audio_id;question;choices;answer\nq;a.wav;Who, now?;a|b;a\n"),
        ("tab.tsv", "id\taudio_id\tquestion\tchoices\tanswer\nq\ta.wav\tWho, now?\ta|b\ta\n"),
        ("names.csv", 'ID,Audio_ID,Question,Choices,Answer\nq,a.wav,"Who, now?",a|b,a\n'),
    ],
)
def test_csv_with_other_separators_and_other_case(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (item,) = load_benchmark(tmp_path / name)
    assert (item.id, item.audio, item.question, item.choices) == ("q", "a.wav", "Who, now?", ("a", "b"))
    assert item.answer == "a"
    assert item.extra == {}


def test_a_column_without_a_name_is_no_field(tmp_path):
    """``DataFrame.to_csv()`` writes the row number under an empty name."""
    table = pd.DataFrame({"audio_id": ["a.wav"] * 3, "question": ["How many?"] * 3, "choices": ["0|1|2"] * 3})
    table.assign(answer=["0", "1", "2"]).to_csv(tmp_path / "a.csv")
    items = load_benchmark(tmp_path / "a.csv")
    assert [item.answer for item in items] == ["0", "1", "2"]
    for item in items:
        texts = (item.caption, item.condition, item.kind, item.split, item.source, item.domain)
        assert (texts, item.caption_answer, item.extra) == (("",) * 6, None, {})
        assert item.id == item.content_id


def test_a_row_with_too_many_cells_is_left_out(tmp_path):
    (tmp_path / "a.csv").write_text("id,question,choices\nq0,Who?,a|b\nq1,Who, now?,a|b\n")
    items = load_benchmark(tmp_path / "a.csv")
    assert [item.id for item in items] == ["q0"]
    assert [(left.item, left.field) for left in items.excluded] == [("q1", "record")]


def test_json_with_nan(folder):
    file = folder / "a.json"
    file.write_text(json.dumps([a_record(0, caption=float("nan"), url=float("nan"), note=float("nan"))]))
    (item,) = load_benchmark(file)
    assert (item.caption, item.source, item.extra["note"]) == ("", "", None)


def test_a_path_may_begin_with_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    write_json(folder / "a.json", [a_record(0)])
    assert load_benchmark("~/a.json")[0].load_audio().seconds == 0.5
    assert load_benchmark("x", path="~/a.json", audio_root="~")[0].load_audio().seconds == 0.5


def test_messages_about_large_files_are_short(tmp_path):
    records = [{f"column {n}": "x" for n in range(5_000)}]
    file = write_json(tmp_path / "a.json", records)
    with pytest.raises(BenchmarkError, match="'words'") as caught:
        load_benchmark(file, fields={"question": "words"})
    assert len(str(caught.value)) < 1_000
    (tmp_path / "b.json").write_text(json.dumps(records[0]))
    with pytest.raises(BenchmarkError, match="column 0") as caught:
        load_benchmark(tmp_path / "b.json")
    assert len(str(caught.value)) < 1_000
