"""The option that a generated answer names: a table of cases by kind, properties, and the real files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mata_interp.benchmarks import final_answer, option_named, score_predictions
from mata_interp.benchmarks.answer_matching import options_inside

from .conftest import downloaded_file

CASES = [
    json.loads(line) for line in Path(__file__).with_name("answers.jsonl").read_text("utf-8").splitlines()
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}: {case['said'][:40]!r}")
def test_cases(case):
    index = option_named(case["said"], case["choices"])
    assert (None if index is None else case["choices"][index]) == case["want"]


def test_the_table_has_all_kinds():
    kinds = Counter(case["kind"] for case in CASES)
    assert len(CASES) >= 200
    assert len(kinds) >= 20
    assert len({(case["said"], tuple(case["choices"])) for case in CASES}) == len(CASES)


# ----------------------------------------------------------------------------------------------- properties
OPTIONS = st.lists(
    st.sampled_from([
        "a dog", "a cat", "rain", "Heavy rain", "wind", "hip-hop", "Jazz", "female", "male", "3", "4.5", "-2",
        "5 seconds", "a violin", "Electric guitar", "G major", "yes", "no", "not clear", "狗", "café",
        "The speaker is angry", "above 50%", "None of the above", "both", "A woman's voice",
    ]),
    min_size=2, max_size=6, unique=True,
)  # fmt: skip
PLAIN = (
    "{text}", "{text}.", " {text}\n", '"{text}"', "**{text}**", "<answer>{text}</answer>",
    "\\boxed{{{text}}}", '{{"answer": "{text}"}}', "<think>Hm.</think>{text}", "The answer is {text}.",
    "Answer: {text}", "<thinking>rain?</thinking>\n\n**Final answer:** {text}", "[{text}]", "“{text}”",
)  # fmt: skip
LETTERED = (
    "({letter})", "({letter}) {text}", "{letter}) {text}", "{letter}. {text}", "{letter}: {text}",
    "**{letter}.** {text}", "Option {letter}: {text}", "The answer is ({letter}) {text}.",
    "{letter}. {text}\n\nI listened twice.", "\\boxed{{\\text{{({letter}) {text}}}}}",
    '{{"answer": "({letter}) {text}"}}', "<answer>({letter})</answer>", "答案:({letter})", "[{letter}]",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(OPTIONS, st.data())
def test_an_option_in_any_decoration_is_that_option(options, data):
    index = data.draw(st.integers(0, len(options) - 1))
    form = data.draw(st.sampled_from(PLAIN + LETTERED))
    output = form.format(text=options[index], letter="ABCDEF"[index])
    assert option_named(output, options) == index


@settings(max_examples=200, deadline=None)
@given(OPTIONS, st.data())
def test_permuting_the_options_permutes_the_result(options, data):
    words = st.sampled_from(
        ["it is", "not", "or", "but", ",", ".", "probably", "rather than", "\n", *options]
    )
    output = " ".join(data.draw(st.lists(words, max_size=6)))
    order = data.draw(st.permutations(range(len(options))))
    before = option_named(output, options)
    after = option_named(output, [options[index] for index in order])
    assert (None if after is None else order[after]) == before


@settings(max_examples=200, deadline=None)
@given(OPTIONS, st.data())
def test_two_options_without_a_decision_stay_open(options, data):
    first, second = data.draw(st.permutations(range(len(options))))[:2]
    form = data.draw(st.sampled_from((
        "{0} or {1}", "{0} and {1}", "either {0} or {1}", "{0}\n{1}", "It may be {0}, it may be {1}.",
        "({2}) {0}\n({3}) {1}", "({2}) {1}", "{2} or {3}", "The answer is {0} or {1}.", "{0}, {1}",
    )))  # fmt: skip
    output = form.format(options[first], options[second], "ABCDEF"[first], "ABCDEF"[second])
    assert option_named(output, options) is None


@settings(deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=12), min_size=1, max_size=5))
def test_no_text_makes_it_fail(output, options):
    named = option_named(output, options)
    assert named is None or 0 <= named < len(options)
    assert option_named("", options) is None


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * 50_000,
        "<answer>" * 50_000,
        "<think>x</think>" * 20_000,
        "\\boxed{" * 50_000,
        "((((" * 20_000 + "B",
        '{"answer": "' * 8_000,
        "not " * 50_000,
        "B. " * 50_000,
        "answer is " * 10_000,
        " " * 200_000 + "B",
    ],
    ids=lambda text: text[:12],
)
def test_a_model_that_loops_takes_linear_time(text):
    """Each would take minutes to hours if the time grew with the square of the length."""
    final_answer(text)
    option_named(text, ["a dog", "a cat"])


# ------------------------------------------------------------------------------------------------ other uses
def test_captions_that_contain_options():
    options = ["a dog", "a cat", "rain"]
    assert options_inside("A dog barks in the rain.", options) == {0, 2}
    assert options_inside("A dog barks, not a cat.", options) == {0}
    assert options_inside("No animal is there, and it rains.", options) == set()
    assert options_inside("From 2 to 9 dogs", ["2", "3"]) == set()


def test_open_answers_are_counted():
    record = {"choices": ["a dog", "a cat"], "answer": "a cat"}
    output = ["B", "a dog or a cat", "hm", "(A) a cat", "a dog"]
    scores = score_predictions([{**record, "model_output": text} for text in output], "mmau")["option_aware"]
    assert (scores["n"], scores["correct"], scores["unparsed"]) == (5, 1, 3)


FEW = (
    "{text}",
    "The answer is {text}.",
    "({letter})",
    "{letter}. {text}",
    '{{"answer": "({letter}) {text}"}}',
)
FILES = pytest.mark.parametrize(("file", "open_ones"), [("mmau-test-mini.json", 9), ("MMAR-meta.jsonl", 4)])


def read_back(file: str, forms: tuple[str, ...]) -> Counter[str]:
    """Each option of a real file in each form is read as that option, or left open: form -> how many are."""
    text = downloaded_file(file).read_text("utf-8")
    records = json.loads(text) if file.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    left_open: Counter[str] = Counter()
    for choices in (record["choices"] for record in records):
        for index, option in enumerate(choices):
            for form in forms:
                if '"' in option and '"' in form:
                    continue  # no JSON, and no quotation
                named = option_named(form.format(text=option, letter="ABCDEFGH"[index]), choices)
                left_open[form] += named is None
                same = named is None or choices[named].strip().lower() == option.strip().lower()
                assert same, (form, option, choices)
    return left_open


@FILES
def test_every_option_of_the_real_files(file, open_ones):
    """Left open are letters that are also another option's text, and an option without words."""
    assert max(read_back(file, FEW).values()) == open_ones


@pytest.mark.acceptance
@FILES
def test_every_option_of_the_real_files_in_every_decoration(file, open_ones):
    assert max(read_back(file, PLAIN + LETTERED).values()) == open_ones
