"""Files with columns of unknown names: what is guessed, said and written."""

from __future__ import annotations

import json

import pytest

from mata_interp.benchmarks import load_benchmark
from mata_interp.benchmarks.guessing import guess_fields, write_fields
from mata_interp.errors import BenchmarkError

HEADERS = {
    "file,question,option_a,option_b,option_c,correct": {
        "audio": "file", "question": "question", "choices": ["option_a", "option_b", "option_c"],
        "answer": {"option": "correct"},
    },
    "path,prompt,A,B,C,answer": {
        "audio": "path", "question": "prompt", "choices": ["A", "B", "C"], "answer": {"option": "answer"},
    },
    "Filename,Query,Choice 1,Choice 2,Choice 3,Label": {
        "audio": "Filename", "question": "Query", "choices": ["Choice 1", "Choice 2", "Choice 3"],
        "answer": {"option": "Label"},
    },
    "recording_name,Instruction,opt_a,opt_b,opt_c,ground truth": {
        "audio": "recording_name", "question": "Instruction", "choices": ["opt_a", "opt_b", "opt_c"],
        "answer": {"option": "ground truth"},
    },
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_what_is_guessed_is_said_written_and_works(folder, tmp_path, header):
    file = folder / "own.csv"
    file.write_text(f"{header}\nclips/0.wav,Who barks?,a dog,a cat,rain,B\nclips/1.wav,What?,x,y,z,(c)\n")
    with pytest.raises(BenchmarkError) as caught:
        load_benchmark(file)
    output = str(caught.value)
    assert all(repr(column) in output for column in header.split(","))
    assert json.dumps(HEADERS[header]) in output
    write_fields(HEADERS[header], tmp_path / "new" / "fields.json")
    items = load_benchmark(file, fields=tmp_path / "new" / "fields.json")
    assert [(item.choices, item.answer) for item in items] == [
        (("a dog", "a cat", "rain"), "a cat"),
        (("x", "y", "z"), "z"),
    ]
    assert not items.drop_undecodable().excluded


def test_answers_that_are_texts_stay_texts():
    rows = [{"wav": "a.wav", "q": "?", "options": ["a dog", "a cat"], "gold": "a cat", "domain": "sound"}]
    assert guess_fields(rows) == {
        "audio": "wav", "question": "q", "choices": "options", "answer": "gold", "domain": "domain",
    }  # fmt: skip


def test_audio_in_a_column_of_an_unknown_name_is_not_overlooked(folder):
    file = folder / "own.csv"
    file.write_text("wave,question,choices,answer\nclips/0.wav,Who?,a|b,a\n")
    with pytest.raises(BenchmarkError, match=r'"audio": "wave"'):
        load_benchmark(file)
    (item,) = load_benchmark(file, fields={"audio": "wave"})
    assert item.load_audio().seconds == 0.5


def test_columns_that_fit_nothing_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(BenchmarkError, match=r"'x', 'y'.*question or choices"):
        load_benchmark(tmp_path / "a.csv")


def test_the_smallest_csv_and_letters_as_answers(folder):
    file = folder / "own.csv"
    file.write_text(
        "audio,question,choices,answer\nclips/0.wav,Who?,a dog|a cat,B\nclips/1.wav,Who?,a dog|a cat,a dog\n"
        "clips/2.wav,Which note?,G|A|B,B\nclips/3.wav,Who?,a dog|a cat,E\nclips/4.wav,Who?,B. dog|A. cat,a\n"
        "clips/5.wav,Who?,1. dog|2. cat,B\n"
    )
    items = load_benchmark(file)
    assert [item.answer for item in items] == ["a cat", "a dog", "B", "A. cat", "2. cat"]
    assert [(left.field, "'E'" in left.reason) for left in items.excluded] == [("answer", True)]
    assert not items.drop_undecodable().excluded[1:]
