"""One item: its id, its sound, what makes it impossible to score."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from mata_interp.benchmarks import Item
from mata_interp.errors import ItemError

NOISE = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)


def an_item(**given) -> Item:
    usual = {"audio": "a.wav", "question": "Which?", "choices": ["a dog", "a bell"], "answer": "a dog"}
    return Item(**usual | given)


def test_an_item_without_an_id_gets_one_from_its_content():
    made = an_item()
    assert made.id == an_item().id
    assert len(made.id) == 12
    assert int(made.id, 16)
    others = [
        an_item(audio="b.wav"),
        an_item(audio=(NOISE, 16_000)),
        an_item(audio=(NOISE, 8_000)),
        an_item(audio=(-NOISE, 16_000)),
        an_item(question="Who?"),
        an_item(choices=["a dog", "a cat"]),
        an_item(answer="a bell"),
        an_item(caption="A dog."),
    ]
    assert len({made.id, *(item.id for item in others)}) == 9
    assert an_item(id="mine").id == "mine"
    assert made.choices == ("a dog", "a bell")


def test_another_sound_leaves_the_item_itself(tmp_path):
    soundfile.write(tmp_path / "b.wav", NOISE, 16_000)
    other = an_item(audio="b.wav", audio_root=tmp_path, id="other")
    item = an_item(audio=(NOISE[:4000], 16_000), caption="A dog.")
    swapped = item.with_audio(other)
    assert (swapped.id, swapped.caption, swapped.answer) == (item.id, "A dog.", "a dog")
    assert swapped.load_audio().seconds == 0.5
    assert item.with_audio((NOISE[:1600], 16_000)).load_audio().seconds == 0.1
    assert item.with_audio(None).audio is None
    assert item.load_audio().seconds == 0.25


def test_the_cluster_is_the_source_or_else_the_sound(tmp_path):
    for name in ("a.wav", "copy.wav"):
        soundfile.write(tmp_path / name, NOISE, 16_000)
    a, copy = (an_item(audio=name, audio_root=tmp_path) for name in ("a.wav", "copy.wav"))
    assert a.cluster == copy.cluster == a.load_audio().sha256
    assert an_item(audio="none.wav", source="https://a.example/1").cluster == "https://a.example/1"
    assert an_item(audio=None, id="mute").cluster == "mute"
    with pytest.raises(ItemError, match="no such file"):
        _ = an_item(audio="none.wav", audio_root=tmp_path).cluster


@pytest.mark.parametrize(
    ("given", "field", "problem"),
    [
        ({"question": " "}, "question", "it is empty"),
        ({"choices": []}, "choices", "[] leaves nothing to choose"),
        ({"choices": ["a dog"]}, "choices", "['a dog'] leaves nothing to choose"),
        ({"choices": ["a dog", "a bell", "a dog"]}, "choices", "'a dog' is repeated"),
        ({"choices": ["a dog", "a dog "]}, "choices", "'a dog' is repeated"),
        ({"choices": ["a dog", ""]}, "choices", "one of ['a dog', ''] is empty"),
        ({"answer": "a cat"}, "answer", "'a cat' is not among the choices ['a dog', 'a bell']"),
        ({"caption_answer": "a cat"}, "caption_answer", "'a cat' is not among the choices"),
    ],
)
def test_items_that_cannot_be_scored(given, field, problem):
    with pytest.raises(ItemError) as caught:
        an_item(id="q1", **given).validate()
    assert (caught.value.item, caught.value.field) == ("q1", field)
    assert problem in caught.value.problem


def test_good_items_are_good():
    an_item().validate()
    an_item(answer=None, caption_answer="a bell", audio=None).validate()


def test_one_text_is_no_list_of_choices():
    with pytest.raises(ItemError, match="'a dog, a bell' is one text"):
        an_item(choices="a dog, a bell")


def test_benchmarks_need_no_torch():
    code = "import sys, mata_interp.benchmarks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
