"""One item: its id, its audio, and what makes it impossible to score."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

from mata_interp.benchmarks import Item
from mata_interp.errors import ItemError

NOISE = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)


def an_item(**values) -> Item:
    usual = {"audio": "a.wav", "question": "Which?", "choices": ["a dog", "a bell"], "answer": "a dog"}
    return Item(**usual | values)


def test_an_item_without_an_id_gets_one_from_its_content():
    made = an_item()
    assert made.id == an_item().id
    assert len(made.id) == 12
    assert int(made.id, 16)
    variants = [
        an_item(audio="b.wav"),
        an_item(audio=(NOISE, 16_000)),
        an_item(audio=(NOISE, 8_000)),
        an_item(audio=(-NOISE, 16_000)),
        an_item(question="Who?"),
        an_item(choices=["a dog", "a cat"]),
        an_item(answer="a bell"),
        an_item(caption="A dog."),
    ]
    assert len({made.id, *(item.id for item in variants)}) == 9
    assert an_item(id="mine").id == "mine"
    assert made.choices == ("a dog", "a bell")


def test_other_audio_leaves_the_rest_of_the_item(tmp_path):
    soundfile.write(tmp_path / "b.wav", NOISE, 16_000)
    other = an_item(audio="b.wav", audio_root=tmp_path, id="other")
    item = an_item(audio=(NOISE[:4000], 16_000), caption="A dog.")
    swapped = item.with_audio(other)
    assert (swapped.id, swapped.caption, swapped.answer) == (item.id, "A dog.", "a dog")
    assert swapped.load_audio().seconds == 0.5
    assert item.with_audio((NOISE[:1600], 16_000)).load_audio().seconds == 0.1
    assert item.with_audio(None).audio is None
    assert item.load_audio().seconds == 0.25


def test_the_cluster_is_the_source_or_else_the_audio(tmp_path):
    for name in ("a.wav", "copy.wav"):
        soundfile.write(tmp_path / name, NOISE, 16_000)
    a, copy = (an_item(audio=name, audio_root=tmp_path) for name in ("a.wav", "copy.wav"))
    assert a.cluster == copy.cluster == a.load_audio().sha256
    assert an_item(audio="none.wav", source="https://a.example/1").cluster == "https://a.example/1"
    assert an_item(audio=None, id="mute").cluster == "mute"
    with pytest.raises(ItemError, match="no such file"):
        _ = an_item(audio="none.wav", audio_root=tmp_path).cluster


@pytest.mark.parametrize(
    ("values", "field", "problem"),
    [
        ({"question": " "}, "question", "empty"),
        ({"choices": []}, "choices", "[]"),
        ({"choices": ["a dog"]}, "choices", "['a dog']"),
        ({"choices": ["a dog", "a bell", "a dog"]}, "choices", "'a dog' is repeated"),
        ({"choices": ["a dog", "a dog "]}, "choices", "'a dog' is repeated"),
        ({"choices": ["a dog", ""]}, "choices", "['a dog', '']"),
        ({"answer": "a cat"}, "answer", "'a cat' is not among the choices ['a dog', 'a bell']"),
        ({"caption_answer": "a cat"}, "caption_answer", "'a cat' is not among the choices"),
    ],
)
def test_items_that_cannot_be_scored(values, field, problem):
    with pytest.raises(ItemError) as caught:
        an_item(id="q1", **values).validate()
    assert (caught.value.item, caught.value.field) == ("q1", field)
    assert problem in caught.value.problem


def test_items_that_can_be_scored():
    an_item().validate()
    an_item(answer=None, caption_answer="a bell", audio=None).validate()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("choices", "a dog, a bell"),
        ("choices", 7),
        ("choices", ["a dog", float("nan")]),
        ("choices", [["a dog"]]),
        ("question", {"text": "Which?"}),
        ("audio", 7),
        ("audio", np.zeros(9)),
        ("audio", {"bytes": bytes(10**6), "path": None}),
    ],
)
def test_values_of_a_wrong_type_are_named_and_the_message_is_short(field, value):
    with pytest.raises(ItemError) as caught:
        an_item(id="q1", **{field: value})
    assert (caught.value.item, caught.value.field) == ("q1", field)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT])
def test_missing_values_mean_that_there_is_none(missing):
    names = ("caption", "condition", "source", "answer", "caption_answer", "split", "id", "choices", "audio")
    item = Item(**{"audio": None, "question": "Which?"} | dict.fromkeys(names, missing))
    assert (item.audio, item.choices, item.answer, item.caption_answer) == (None, (), None, None)
    assert (item.caption, item.condition, item.source, item.split, len(item.id)) == ("", "", "", "", 12)
    assert item.id == Item(audio=None, question="Which?").id


def test_options_may_be_an_array_and_numbers():
    plain = an_item(choices=["1", "2"], answer="2")
    for choices in (np.array(["1", "2"]), np.array([1, 2]), pd.Series(["1", "2"]), (1, 2)):
        item = an_item(choices=choices, answer=2)
        assert (item.choices, item.answer, item.id) == (("1", "2"), "2", plain.id)


def test_audio_may_be_that_of_the_datasets_library():
    item = an_item(audio={"array": NOISE, "sampling_rate": 16_000, "path": None})
    assert item.id == an_item(audio=(NOISE, 16_000)).id
    assert item.load_audio().seconds == 0.5


def test_benchmarks_need_no_torch():
    code = "import sys, mata_interp.benchmarks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
