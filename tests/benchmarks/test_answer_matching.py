"""The official string match, and the option that an answer names."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mata_interp.benchmarks import final_answer, official_match, option_named

from .conftest import downloaded_file
from .plain_scores import right, words

CHOICES = ["a dog", "A big dog barks", "rain", "rain and wind"]
WORD = st.sampled_from(
    ["a", "dog", "Dog", "rain", "is", "B", "(b)", "don't", "A#", "3.5", "_x", "狗", "é", ""]
)
TEXT = st.lists(WORD, max_size=6).map(" ".join)


@settings(max_examples=500)
@given(TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=5))
@example("", "", [""])
@example("the", "", ["the"])
def test_the_official_match_is_that_of_the_plain_reference(prediction, answer, choices):
    assert official_match(prediction, answer, choices) == right(prediction, answer, choices)
    assert official_match(prediction, answer, [*choices, answer]) == right(
        prediction, answer, [*choices, answer]
    )


@given(st.text(max_size=40))
def test_words_are_those_of_the_regular_expression(text):
    lower = text.lower()
    marks = any(re.match(r"\w", c) and not (c.isalnum() or c == "_") for c in lower)
    if not marks:  # a few marks are word characters to re and not letters to str
        assert words(text) == re.findall(r"\b\w+\b", lower)


@pytest.mark.parametrize(
    ("prediction", "official"),
    [
        ("rain", True),
        ("Rain.", True),
        ("it is rain", True),
        ("(C) rain", True),
        ("C", False),  # a letter is not a word of the option
        ("a rain", False),  # "a" is a word of a wrong choice
        ("rain and wind", False),
        ("", False),
        ("...", False),
    ],
)
def test_quirks_of_the_official_match(prediction, official):
    assert official_match(prediction, "rain", CHOICES) is official


@pytest.mark.parametrize(
    ("prediction", "named"),
    [
        ("rain", 2),
        ("RAIN.", 2),
        ("C", 2),
        ("c", 2),
        ("(C)", 2),
        ("C.", 2),
        ("C)", 2),
        ("C: rain", 2),
        ("(C) rain", 2),
        ("**C**", 2),
        ("Option C", 2),
        ("The answer is C.", 2),
        ("The answer is (C) rain.", 2),
        ("The correct answer is option C", 2),
        ("Final answer: rain", 2),
        ("<answer>C</answer>", 2),
        ("<think>A dog? (A)</think><answer> rain </answer>", 2),
        ("Not the dog, <answer>A</answer> no: <answer>C</answer>", 2),
        ("I hear rain and wind outside", 3),  # the longer of two contained options
        ("a dog, the answer is rain", 2),  # the text after the lead-in comes first
        ("a dog or rain", None),
        ("(C) a dog", None),  # letter and text contradict each other
        ("E", None),  # four options
        ("Definitely!", None),
        ("", None),
        ("<think>rain", None),
        ("It is not rain", None),
        ("I don't hear a dog", None),
        ("brain", None),  # part of another word
        ("A dog", 0),  # not the letter A
        ("A big dog barks.", 1),
    ],
)
def test_the_option_that_an_answer_names(prediction, named):
    assert option_named(prediction, CHOICES) == named


def test_letters_that_are_options_themselves_are_not_guessed():
    notes = ["G", "A#", "D", "E"]
    assert option_named("D", notes) is None  # the third option, or the fourth?
    assert option_named("(A) D", notes) is None
    assert option_named("(C) D", notes) == 2
    assert option_named("A#", notes) == 1
    assert option_named("B", ["B", "A"]) is None
    assert option_named("A", ["A", "B"]) == 0


def test_a_repeated_choice_is_named_by_its_first():
    assert option_named("D", ["four", "nine", "fourteen", "fourteen"]) == 2
    assert option_named("fourteen", ["four", "nine", "fourteen", "fourteen"]) == 2


@given(st.lists(TEXT, min_size=2, max_size=5), TEXT)
def test_no_answer_makes_it_fail(choices, prediction):
    named = option_named(prediction, choices)
    assert named is None or 0 <= named < len(choices)
    assert option_named("", choices) is None


def test_cut_thoughts_are_no_answer():
    assert final_answer("<think>a dog") == ""
    assert final_answer("hm </think> a dog") == "a dog"


@pytest.mark.parametrize(
    ("file", "sentence", "other"), [("mmau-test-mini.json", 93, 9), ("MMAR-meta.jsonl", 90, 20)]
)
def test_what_the_official_match_does_on_the_real_files(file, sentence, other):
    """93 of MMAU's 1000 right answers are wrong as a sentence, and on 9 items another option is right."""
    records = read(downloaded_file(file))
    assert sum(not match(r, f"The answer is {r['answer']}.") for r in records) == sentence
    assert sum(any(match(r, c) for c in r["choices"] if c != r["answer"]) for r in records) == other
    assert all(match(r, r["answer"]) for r in records)
    for r in records:
        for prediction in (r["answer"], f"The answer is {r['answer']}.", *r["choices"]):
            assert match(r, prediction) == right(prediction, r["answer"], r["choices"])


def match(record, prediction):
    return official_match(prediction, record["answer"], record["choices"])


def read(file):
    text = file.read_text("utf-8")
    return json.loads(text) if file.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
