import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

import mata_interp as mi
from mata_interp.errors import RunError, RunWarning
from mata_interp.experiments import Effects
from mata_interp.experiments.effects import effects_table
from mata_interp.ranges import brief
from mata_interp.reporting.choice import _causal_map
from mata_interp.reporting.comparisons import Comparisons
from mata_interp.reporting.page import build_page
from mata_interp.reporting.parts import Page, Section
from mata_interp.reporting.render import script_hash
from mata_interp.reporting.wording import interval, number, percent, points

from .small import HOSTILE, small_study

SILENT = ("style", "script")
INLINE = ("a", "b", "code")


class Document(HTMLParser):
    """What a browser makes of a page: its elements, their attributes, and its words."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._silent = 0
        self.feed(html)
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._silent += tag in SILENT
        self.words += "" if tag in INLINE else " "

    def handle_endtag(self, tag):
        self._silent -= tag in SILENT
        self.words += "" if tag in INLINE else " "

    def handle_data(self, data):
        self.words += "" if self._silent else data

    def with_data(self, **expected: str) -> list[dict[str, str | None]]:
        """The attributes of the elements that have these data attributes."""
        return [
            attributes
            for _, attributes in self.elements
            if all(attributes.get(f"data-{name}") == value for name, value in expected.items())
        ]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run():
    return mi.load_run(small_study().run)


@pytest.fixture(scope="module")
def html() -> str:
    return (small_study().run / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(html) -> Document:
    return Document(html)


def section_of(page: Page, name: str) -> Section:
    return next(section for section in page.sections if section.id == name)


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_answer_stands_first(run, page):
    headline, *numbers = (words(text) for text in run.study.answer.replace(" %", "\u202f%").split("\n\n"))
    assert headline in page.words
    assert " ".join(numbers) in page.words
    text = page.words[page.words.index("Skip to the answer") :]
    assert text.index(headline) < text.index("chance") < text.index("Figure 1.")
    assert len(page.all("h1")) == 1
    assert "tones: 12 items, 4 clips" in page.words


def test_the_order_of_the_page(page):
    ids = [a["id"] for name, a in page.elements if name in ("section", "figure") and "id" in a]
    assert " ".join(map(str, ids)) == (
        "answer items summary effect forest flow margins no-harm controls attention heat-map profile choice "
        "grid dose-response accuracy reliance provenance left-out glossary"
    )


def number_of(attributes: dict[str, str | None], name: str) -> float:
    value = attributes[f"data-{name}"]
    return float(value) if value else float("nan")


def test_primary_numbers_are_those_of_the_effects_table(run, page):
    primary = run.effects.primary.effect
    headline = {key: page.with_data(key=key)[0] for key in ("accuracy", "change", "counts")}
    for attributes in headline.values():
        assert attributes["data-family"] == "primary"
        assert number_of(attributes, "difference") == primary.difference
    assert number_of(headline["accuracy"], "before") == primary.before
    assert number_of(headline["accuracy"], "after") == primary.after
    np.testing.assert_equal(number_of(headline["change"], "low"), primary.low)
    np.testing.assert_equal(number_of(headline["change"], "high"), primary.high)
    assert (number_of(headline["counts"], "fixed"), number_of(headline["counts"], "broken")) == (
        primary.fixed,
        primary.broken,
    )
    assert number_of(headline["counts"], "p-holm") == run.effects.primary.p_holm
    assert words(f"{number(100 * primary.before, 1)} → {percent(primary.after)}") in page.words
    assert interval(primary.low, primary.high) in page.words
    assert f"{primary.fixed} / {primary.broken}" in page.words
    baseline = run.records[run.records["condition"] == "baseline"].set_index("item")
    conflict = baseline[baseline["caption_condition"] == "conflict"]
    mata = run.records[run.records["condition"] == "mata"].set_index("item").loc[conflict.index]
    assert primary.fixed == (~conflict["correct"].astype(bool) & mata["correct"].astype(bool)).sum()


def test_the_difference_from_the_sham_on_text_is_a_headline_number(run, page):
    row = run.effects.select(
        before_role="sham_text", after_role="mata", column="correct",
        subset=run.effects.primary.comparison.subset,
    )[0]  # fmt: skip
    shown = page.with_data(key="against-text")[0]
    for name in ("difference", "low", "high", "p"):
        np.testing.assert_equal(number_of(shown, name), getattr(row.effect, name))


def test_chance_stands_beside_accuracy(run, page):
    chance = run.effects.primary.chance
    assert number_of(page.with_data(key="accuracy")[0], "chance") == chance == 0.5
    assert page.with_data(condition="chance")
    assert words(f"chance {percent(chance)}") in page.words


def test_every_claim_of_no_harm_is_on_the_page(run, page):
    assert len(run.effects.no_harm) == 4
    for claim in run.effects.no_harm:
        rows = page.with_data(claim=claim.claim, kind=claim.comparison.kind, verdict=claim.verdict)
        assert claim.test.difference in [number_of(attributes, "difference") for attributes in rows]


def test_margins_are_not_folded(html):
    assert "Changes of the mean margin" in html
    before = html[: html.index("Changes of the mean margin")]
    assert before.count("<details") == before.count("</details>")


def test_every_comparison_of_the_tables_has_a_row_with_its_numbers(run, html, page):
    table = html[html.index("Table 1.") : html.index("</table>", html.index("Table 1."))]
    shown = {tuple(re.findall(r"<td>(.*?)</td>", row)[1:8]) for row in table.split("<tr")}
    main = run.effects.primary.comparison.subset
    for row in run.effects:
        comparison, effect = row.comparison, row.effect
        against_sham = comparison.family == "sham" and comparison.after_role == "mata"
        other_items = comparison.family == "sham" and comparison.subset != main
        audio_alone = comparison.after_role in ("other_audio", "no_audio")
        whole_domain = set(comparison.subset) == {"domain"}
        if against_sham or other_items or audio_alone or whole_domain:
            continue
        subset = ",".join(f"{column}={value}" for column, value in comparison.subset.items())
        attributes = page.with_data(effect=comparison.name, column=comparison.column, subset=subset)
        assert attributes, comparison.name
        for name in ("n", "before", "after", "difference", "low", "high", "p"):
            np.testing.assert_equal(number_of(attributes[-1], name), getattr(effect, name))
        np.testing.assert_equal(number_of(attributes[-1], "p-holm"), row.p_holm)
        if comparison.kind == "binary":
            change = f"{points(effect.difference)} {interval(effect.low, effect.high)}"
            rates = [number(100 * rate, 1) for rate in (effect.before, effect.after)]
            chance = number(100 * row.chance, 1)
            assert (f"{effect.n}", chance, *rates, change, f"{effect.fixed}", f"{effect.broken}") in shown


def test_both_accuracies_of_every_condition_are_in_the_table(run, page):
    for _, part in run.records.groupby("condition"):
        plain, normalised = (number(100 * part[c].mean(), 1) for c in ("correct", "correct_normalised"))
        assert f"{len(part)} {plain} ({normalised})" in page.words


def test_the_caveat_stands_with_dose_and_negative_scores(run, html):
    mata = run.records[run.records["condition"] == "mata"]
    note = html[html.index('<p class="note">') : html.index("</p>", html.index('<p class="note">'))]
    note = Document(note).words
    assert "2509.18816" in note
    assert words(percent(mata["dose_negative"].mean(), 0)) in note
    assert f"KL {number(mata['dose_kl'].mean(), 3)} nats" in note


def test_what_was_run_can_be_run_again(run, page):
    manifest = run.manifest
    for value in (
        manifest["model"]["name"],
        manifest["model"]["weights_sha256"],
        manifest["data"]["file_sha256"],
        manifest["prompt_format"],
        manifest["created"],
        run.study.command.partition(" ")[2],  # without the folder of the program
        f"mata_interp {mi.__version__}, python",
        f"torch {manifest['model']['versions']['torch']}",
    ):
        assert words(value) in page.words
    for name, role in run.roles.items():
        assert page.with_data(condition=name, role=role)
    alpha = manifest["conditions"]["mata on text"]["interventions"][0]["alpha"]
    assert f"alpha {alpha:g}" in page.words


def test_what_was_left_out_is_named(run, page):
    assert len(run.excluded) == 2
    for row in run.excluded:
        assert page.with_data(item=row.item)
        assert f"{row.item} {row.field} {words(row.reason)}" in page.words


def test_the_selection_map_is_drawn_whole(run, html):
    section = html[html.index('<section id="choice"') : html.index('<section id="accuracy"')]
    selection = run.study.selection
    assert f"{len(selection.grid)} configurations" in section
    changes, _ = _causal_map(selection.grid, selection.baseline.margin)
    assert np.isfinite(changes.values).sum() == len(selection.grid)
    for alpha in changes["alpha"].values:
        assert f">alpha {alpha:g}<" in section
    for row in sorted(selection.grid, key=lambda row: -row.margin)[:10]:
        change = number(row.margin - selection.baseline.margin, 2, sign=True)
        assert f"<td>{change}</td>" in section
        cell = changes.sel(layers=brief(row.layers), alpha=row.alpha).item()
        assert number(cell, 2, sign=True) == change


def test_it_is_one_file_that_loads_nothing(html, page):
    assert not {name for name, _ in page.elements} & {"iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(name)
            is_link = tag == "a" and name == "href"  # opens on a click alone
            allowed = ("#", "data:", "https://") if is_link else ("#", "data:")
            assert value is None or value.startswith(allowed), attributes
        assert not any(name.startswith("on") for name in attributes)
    policy = page.all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'")  # type: ignore[union-attr]
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert re.findall(r"'(sha256-[^']+)'", str(policy["content"])) == [script_hash(text) for text in scripts]
    data = [attributes for attributes in page.all("script") if attributes.get("type") == "application/json"]
    assert len(scripts) + len(data) == len(page.all("script"))  # no other may run
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_folder_gives_the_same_bytes(html, tmp_path):
    assert mi.report(small_study().run, tmp_path / "again.html").read_text("utf-8") == html


def test_hostile_words_are_only_words(html):
    small = small_study(HOSTILE)
    page = Document((small.run / "report.html").read_text("utf-8"))
    assert not page.all("img")
    assert len(page.all("script")) == len(Document(html).all("script"))
    assert f"bad answer{HOSTILE}" in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert str(escape(HOSTILE)) in (small.run / "report.html").read_text("utf-8")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the study, to be spoilt."""
    return Path(shutil.copytree(small_study().run, tmp_path / "run"))


def test_a_hostile_model_name(folder, html):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model"]["name"] = f"owner/{HOSTILE}\x00\x1b[31m"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    page = Document(mi.report(folder).read_text("utf-8"))
    assert not page.all("img")
    assert len(page.all("script")) == len(Document(html).all("script"))
    assert not set(page.words) & {"\x1b", "\x00"}


def test_a_run_without_a_study_has_a_page_of_its_own(folder):
    for name in ("study.json", "effects.json", "trace.nc"):
        (folder / name).unlink()
    page = Document(mi.report(folder).read_text("utf-8"))
    assert page.with_data(condition="baseline")
    assert not page.with_data(family="primary")
    ids = [attributes.get("id") for attributes in page.all("section")]
    assert ids == [
        "answer", "items", "summary", "effect", "accuracy", "reliance", "provenance", "left-out", "glossary",
    ]  # fmt: skip


def test_an_unfinished_run_says_so(folder):
    part = sorted((folder / "parts").iterdir())[0]
    part.unlink()
    with pytest.warns(RunWarning, match="missing"):
        page = Document(mi.report(folder).read_text("utf-8"))
    assert "1 part missing" in page.words


def test_a_long_list_of_what_was_left_out_is_folded_but_whole(folder):
    study = json.loads((folder / "study.json").read_text())
    study["excluded"] = [{"item": f"i{n}", "field": "audio", "reason": "empty."} for n in range(40)]
    (folder / "study.json").write_text(json.dumps(study))
    page = Document(mi.report(folder).read_text("utf-8"))
    assert all(page.with_data(item=f"i{n}") for n in range(40))
    assert "audio 40" in page.words


def test_effects_without_an_interval_are_shown_as_such(folder):
    content = json.loads((folder / "effects.json").read_text())
    for effect in content["effects"]:
        effect |= {"low": None, "high": None, "p_holm": None}
    (folder / "effects.json").write_text(json.dumps(content))
    page = Document(mi.report(folder).read_text("utf-8"))
    assert page.with_data(key="change")[0]["data-low"] == ""
    assert "95 % interval \u2014" in page.words
    assert "nan" not in page.words.lower().split()


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(RunError, match="manifest"):
        mi.report(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        mi.report(small_study().run, tmp_path / "file" / "report.html")


def test_figures_and_tables_are_counted_in_order(page):
    for name in ("Figure", "Table"):
        numbers = [int(n) for n in re.findall(rf"{name} (\d+)\. [A-Z]", page.words)]
        assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))
        assert list(dict.fromkeys(numbers)) == sorted(set(numbers))


def test_a_benchmark_without_captions(run):
    """As MMAU: the primary comparison is then on all items."""
    records = run.records.assign(caption_condition="", domain="")
    effects = effects_table(records, run.roles, seed=0)
    page = build_page(replace(run, records=records, effects=effects))
    assert page.rows[0].title == "Effect (all items)"
    assert page.keys[0].detail.startswith("chance 50")
    table = next(part for kind, part in section_of(page, "effect").content if kind == "table")
    assert [block.rows[0].data["column"] for block in table.blocks] == [
        "correct",
        "correct",
        "correct_normalised",
        "official",
    ]
    assert [block.rows[0].data["family"] for block in table.blocks[:2]] == ["primary", "sham"]
    official = table.blocks[-1].rows[0].cells  # the options are single words here: both scores are alike
    assert official[1:8] == table.blocks[0].rows[0].cells[1:8]


def test_conditions_have_names_that_fit():
    draws = {"a": [0, 5], "b": [0, 2, 4, 6, 8, 10, 12]}
    conditions = {
        name: mi.Condition(mi.Mata(1.0, layers), role="sham_random_layers") for name, layers in draws.items()
    }
    conditions["mine"] = mi.Condition(mi.Mata(1.0, [1]), role="mata")
    conditions["weak"] = mi.Condition(mi.Mata(0.1, [1]))
    comparisons = Comparisons(Effects(), conditions)
    assert comparisons.label("a") == "MATA in random layers 0, 5"
    assert comparisons.label("b") == "MATA in random layers, draw 2"
    assert comparisons.label("mine") == "MATA"
    assert (comparisons.label("weak"), comparisons.role("weak")) == ("weak", "mata")
    assert comparisons.label("my own\x1b") == "my own\ufffd"


def test_methods_are_named_where_they_differ(run, page):
    def method(effect):
        return f"{effect.interval_method} interval, {effect.p_method} test"

    primary = run.effects.primary.effect
    of_all_items = run.effects.select(column="correct", subset={})[0].effect  # three items of each clip
    assert f"Method: {method(primary)}" in page.words
    exception = f"{method(of_all_items)} for all items"
    assert (exception in page.words) == (method(of_all_items) != method(primary))


def test_the_page_is_data_before_it_is_html(run):
    page = build_page(run)
    assert [section.id for section in page.sections] == [
        "items",
        "effect",
        "no-harm",
        "controls",
        "attention",
        "choice",
        "accuracy",
        "reliance",
        "provenance",
        "left-out",
    ]
    assert all(isinstance(cell, str) for _, table in page.sections[-1].content for b in table.blocks
               for row in b.rows for cell in row.cells)  # fmt: skip
