"""Objects as HTML in notebooks: well-formed, escaped, small, and readable in light and dark themes."""

from __future__ import annotations

import copy
import pickle
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.checking import CheckReport, CheckResult
from mata_interp.markup import coloured_tokens, player, printable, table
from tests.reporting.small import HOSTILE

VOID = {"br", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements, attributes and text; fails on unbalanced elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def show(shown: object, limit: int = 20_000) -> Page:
    """The parsed HTML, after the checks that hold for every object."""
    html = shown._repr_html_()
    page = Page(html)
    assert {tag for tag, _ in page.elements} <= {
        "div", "span", "strong", "table", "thead", "tbody", "tr", "th", "td", "audio", "br",
    }  # fmt: skip
    sources = [attrs["src"] for _, attrs in page.elements if "src" in attrs]
    assert all(source.startswith("data:audio/") for source in sources)  # nothing is loaded from elsewhere
    assert len(re.sub(r"data:[^\"]+", "", html)) < limit
    colours = re.findall(r"(?:background|color):([^;\"]+)", html)
    assert all(c in ("inherit", "transparent") or re.fullmatch(r"rgba\(.*, ?0\.\d+\)", c) for c in colours), (
        colours
    )
    return page


@pytest.fixture(scope="module")
def lalm():
    return mi.LALM.from_pretrained("organism")


@pytest.fixture(scope="module")
def items():
    return mi.load_benchmark("listening").split("selection")


@pytest.fixture(scope="module")
def run(lalm, items):
    return mi.run(lalm, items[:6], {"baseline": None, HOSTILE[:30]: mi.Mata(1.0, [4])}, progress=False)


def test_model(lalm):
    page = show(lalm)
    assert "8 layers" in page.text
    assert "Qwen2AudioForConditionalGeneration" in page.text


def test_prompt_shows_every_group_with_its_text(lalm, items):
    item = items.filter(condition="conflict")[0]
    prompt = lalm.prompt(item)
    page = show(prompt)
    for text in (item.question, item.caption, *item.choices):
        assert text in page.text
    counts = {name: int(mask.sum()) for name, mask in prompt.groups.items() if mask.any()}
    for name, number in counts.items():
        assert f"{name} {number}" in page.text
    assert f"{counts['audio']} audio tokens" in page.text
    assert f"{prompt.audio_seconds[0]:.3g} s" in page.text
    titles = [attrs["title"] for tag, attrs in page.elements if tag == "span" and "title" in attrs]
    assert set(titles) == set(counts)


def test_text_of_a_prompt_is_tinted_by_its_own_group(lalm, items):
    prompt = lalm.prompt(items[:5])
    html = prompt._repr_html_()
    for row, item in enumerate(items[:3]):
        ids = prompt.inputs["input_ids"][row][prompt.groups["question"][row]]
        text = "".join(prompt.tokenizer.decode([one]) for one in ids.tolist())
        shown = re.escape(printable(text).replace("\n", "↵<br>"))
        assert re.search(f'<span title="question"[^>]*>{shown}</span>', html)
        assert item.id in html
    assert "2 more rows" in html


def test_prompt_without_a_tokenizer_still_counts(lalm, items):
    prompt = lalm.prompt(items[0])
    again = pickle.loads(pickle.dumps(prompt))
    assert again.tokenizer is None
    assert prompt.tokenizer is not None
    assert copy.copy(prompt).width == prompt.width
    ready = lalm.prompt_from_inputs(prompt.inputs)
    for one in (again, ready):
        assert f"audio {int(prompt.groups['audio'].sum())}" in show(one).text


def test_items_have_players(items):
    page = show(items)
    assert page.count("audio") == 3
    assert page.count("tr") == 6
    assert f"{len(items) - 5:,} more items" in page.text
    assert len(items._repr_html_()) < 200_000


def test_items_that_cannot_be_played_say_so():
    records = [
        {
            "id": f"q{n}",
            "question": HOSTILE,
            "choices": ["a", HOSTILE],
            "answer": "a",
            "audio": f"gone{n}.wav",
        }
        for n in range(2)
    ]
    hostile = mi.Items.from_records([*records, {"id": HOSTILE}])
    page = show(hostile)
    assert page.count("audio") == 0
    assert page.text.count("no audio") == 2
    assert "1 left out" in page.text
    assert "<script>" in page.text  # as text


def test_run_and_effect(run):
    page = show(run)
    accuracy = run.records.groupby("condition")["correct"].mean()
    for name, value in accuracy.items():
        assert name in page.text
        assert f"{100 * float(value):.1f} %" in page.text
    wide = run.records.pivot(index="item", columns="condition", values="correct").astype(float)
    effect = mi.paired_effect(wide["baseline"], wide[HOSTILE[:30]])
    text = show(effect).text
    assert f"{100 * effect.difference:+.1f} points" in text
    assert f"{effect.fixed}, {effect.broken}" in text
    margin = mi.paired_effect([0.1, 0.2, 0.4], [0.3, 0.1, 0.9], kind="margin")
    assert f"{margin.difference:+.3g} nats" in show(margin).text


def test_profile(lalm, items):
    profile = mi.fusion_layers(lalm, items[:2], criteria=["depth"], progress=False)
    text = show(profile).text
    assert "recommended" in text
    assert "3–5" in text


def test_check_report():
    results = (
        CheckResult("masses", "with eager", "equal", 0.0, 1e-5, "pass", ""),
        CheckResult(HOSTILE, "edits", HOSTILE, 1.0, 1e-5, "fail", "look at layer 3"),
    )
    text = show(CheckReport(HOSTILE, {}, results)).text
    assert "✓ pass" in text
    assert "✗ fail" in text
    assert "look at layer 3" in text


@pytest.mark.parametrize("text", [HOSTILE, "a\u202eb\u0000c\ud800", "x" * 10_000, "'\"&"])
def test_any_text_is_only_text(text):
    page = Page(table(["a"], [[text]]))
    assert page.count("script") == page.count("img") == 0
    assert len(page.text) < 200
    assert not {"\u202e", "\u0000", "\ud800"} & set(page.text)
    printable(text).encode()


def test_seconds_stand_under_the_audio():
    tokens = [("<s>", "sink"), *[("", "audio")] * 50, ("Who?", "question"), *[("", "audio")] * 50]
    page = Page(coloured_tokens(tokens, 4.0))
    assert page.text.count("50 audio tokens") == 2
    marks = [float(mark) for mark in re.findall(r"([\d.]+) s", page.text)]
    assert marks == [0, 1, 2, 2, 3, 4]  # two clips of two seconds, one after the other
    assert "s" not in Page(coloured_tokens(tokens[1:51], float("nan"))).text.replace("tokens", "")


@pytest.mark.parametrize(("rate", "form"), [(16_000, "ogg"), (44_100, "flac")])
def test_player_holds_the_clip(rate, form):
    import base64
    import io

    import soundfile

    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    html = player(tone, rate)
    data = re.search(rf"data:audio/{form};base64,([^\"]+)", html)[1]
    samples, read = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert read == rate
    assert abs(len(samples) - rate) < 0.02 * rate
    assert np.sqrt(np.mean(samples[rate // 4 :] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(440, abs=2)
