"""Glossary, tooltips, dark colours, data for scripts, and the sections that a folder may or may not have."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import mata_interp as mi
from mata_interp.experiments import Effects
from mata_interp.experiments.planned_comparisons import Comparison
from mata_interp.experiments.study_result import Configuration, GridRow, LayerOrigin, SweepScore
from mata_interp.plot.tooltips import tip
from mata_interp.reporting.comparisons import Comparisons
from mata_interp.reporting.figures.flow import Flow, flow
from mata_interp.reporting.figures.svg import figure_style, to_svg
from mata_interp.reporting.figures.theme import DARK, themed
from mata_interp.reporting.flow import flow_figure
from mata_interp.reporting.glossary import Glossary
from mata_interp.reporting.layers import editing, layers_section
from mata_interp.reporting.page import build_page
from mata_interp.reporting.parts import JsonPart, Page, Section
from mata_interp.reporting.render import render_page
from mata_interp.reporting.run_comparisons import RunPairs, run_sections
from mata_interp.reporting.tasks import tasks_section

from .small import HOSTILE, small_study


class Titles(HTMLParser):
    """The texts of all ``<title>`` elements, in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self._inside = tag == "title"
        if self._inside:
            self.texts.append("")

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.texts[-1] += data


@pytest.fixture(scope="module")
def run():
    return mi.load_run(small_study().run)


def test_a_term_is_marked_once_in_a_section_and_text_is_escaped():
    glossary = Glossary({"dose": "how much", "95 % interval": "compatible"})
    mark = glossary.marker()
    first = mark("A Dose & a dose: overdose, 95\u202f% interval <b>")
    assert first.count("<a ") == 2
    assert '<a class="term" href="#term-dose" data-tip="how much">Dose</a> &amp; a dose: overdose' in first
    assert ">95\u202f% interval</a> &lt;b&gt;" in first
    assert "<a " not in mark("dose")
    assert "<a " in glossary.marker()("dose")
    assert Glossary({}).marker()("<dose>") == "&lt;dose&gt;"


def test_every_term_of_the_page_is_in_its_glossary(run):
    page = build_page(run)
    html = render_page(page, "0")
    links = set(re.findall(r'class="term" href="#([^"]+)"', html))
    assert links
    assert links <= set(re.findall(r'<dt id="([^"]+)"', html))
    assert "churned" in page.glossary


def test_each_mark_has_its_own_tooltip():
    values = np.array([[0.1, 0.2], [0.3, np.nan]])
    with figure_style("x"):
        figure = Figure(figsize=(2, 2))
        axes = figure.subplots()
        tip(axes.pcolormesh(np.ma.masked_invalid(values)), *(f"cell {n}" for n in range(4)))
        tip(axes.scatter([0, 1, 2], [0, 1, 2]), "a", HOSTILE, "c")
        tip(axes.plot([0, 1], [0, 1])[0], "a line")
        svg = to_svg(figure, "x", "label")
    assert Titles(svg).texts == [*(f"cell {n}" for n in range(4)), "a", HOSTILE, "c", "a line"]
    assert svg.count("<title>cell 0</title></path>") == 1
    assert "tips-" not in svg
    image = figure_with_image()
    assert Titles(image).texts == []  # an image has no marks


def figure_with_image() -> str:
    with figure_style("y"):
        figure = Figure(figsize=(2, 2))
        mesh = figure.subplots().pcolormesh(np.ones((2, 2)))
        mesh.set_rasterized(True)
        tip(mesh, "a", "b", "c", "d")
        return to_svg(figure, "y", "label")


def test_every_colour_of_a_figure_has_one_for_the_dark():
    assert themed("fill: #1a1a1a") == f"fill: #1a1a1a; fill: light-dark(#1a1a1a, {DARK['#1a1a1a']})"
    assert themed("fill: #123456") == "fill: #123456"
    html = (small_study().run / "report.html").read_text("utf-8")
    single = re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})(?!; (?:fill|stroke): light-dark)", html)
    assert set(single) == set()


def test_data_for_scripts_cannot_end_their_element():
    value = {"text": HOSTILE, "more": "\u2028 & é", "numbers": [1, 2.5, None]}
    section = Section(
        "s", "S", [("json", JsonPart("data", value))], style=".s { color: red; }", script="let s;"
    )
    html = render_page(Page("k", "t", ["a"], sections=[section, replace(section, id="s2", content=[])]), "0")
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert match is not None
    assert json.loads(match[1]) == value
    assert html.count(".s { color: red; }") == html.count("let s;") == 1


def test_flow_counts_every_answer_once(run):
    records = pd.DataFrame(
        [
            {"item": str(n), "condition": name, "answer": "a", "predicted": side, "correct": side == "a"}
            for n, pair in enumerate(
                [("a", "a"), ("b", "a"), ("a", "b"), ("b", "c"), ("b", "b"), (None, None)]
            )
            for name, side in zip(("before", "after"), pair, strict=True)
        ]
    )
    part = flow_figure(records, "before", "after", {})
    assert part is not None
    assert "3 answers of 6 (50.0\u202f%) changed: 1 corrected, 1 broken, 1 churned" in part.caption
    texts = set(Titles(part.svg).texts)
    for name in ("right both times", "broken", "corrected", "churned: another wrong answer"):
        assert f"1 of 6 {name} (16.7 %)" in texts
    assert "2 of 6 the same wrong answer (33.3 %)" in texts
    assert flow_figure(records, "before", "missing", {}) is None
    assert Flow(1, 2, 3, 4, 5).n == 15
    flow(Flow(0, 0, 0, 0, 0), 7.6)  # nothing to show is no error


def test_tasks_have_a_forest_plot_and_a_test_of_their_differences(run):
    records = run.records.assign(kind=["pitch" if n % 2 else "tempo" for n in range(len(run.records))])
    section = tasks_section(records, "baseline", "mata", {}, "all items")
    assert section is not None
    (_, figure), (_, table) = section.content
    assert "all items" in figure.caption.lower()
    assert {row.cells[0] for row in table.blocks[0].rows} == {"pitch", "tempo"}
    assert tasks_section(run.records.assign(kind="one"), "baseline", "mata", {}, "all items") is None


def test_a_plain_run_gets_its_comparisons(run):
    plain = replace(run, effects=None, study=None)
    pairs = RunPairs.of(plain)
    assert pairs is not None
    assert pairs.baseline == "baseline"
    assert set(pairs.conditions) == set(run.conditions) - {"baseline"}
    section = run_sections(plain, Comparisons(Effects(), run.conditions))[0]
    table = next(part for kind, part in section.content if kind == "table")
    expected = run.compare(conditions=pairs.conditions).set_index("condition")
    shown = {row.data["compared"]: row for row in table.blocks[0].rows}
    assert set(shown) == set(expected.index)
    for name, row in shown.items():
        assert float(row.data["difference"]) == expected.loc[name, "difference"]
        assert float(row.data["p-adjusted"]) == expected.loc[name, "p_adjusted"]
    lonely = replace(
        plain, manifest={**run.manifest, "conditions": {"baseline": run.manifest["conditions"]["baseline"]}}
    )
    assert RunPairs.of(lonely) is None


def test_an_unfinished_run_is_not_compared_but_noticed(run):
    first = run.records.index[run.records["condition"] == "mata"][0]
    plain = replace(run, effects=None, study=None, records=run.records.drop(index=first))
    section = run_sections(plain, Comparisons(Effects(), run.conditions))[0]
    ((kind, text),) = section.content
    assert kind == "notice"
    assert "Finish the run" in text


@pytest.mark.filterwarnings("ignore::mata_interp.errors.MataWarning")  # what is left out is meant to be
def test_a_layer_profile_in_the_folder_is_shown(run, tmp_path):
    assert layers_section(tmp_path) is None
    assert layers_section(None) is None
    lalm = mi.LALM.from_pretrained(small_study().model)
    items = mi.load_benchmark(small_study().benchmark).filter(condition="conflict")[:4]
    profile = mi.fusion_layers(lalm, items, criteria=["depth"], progress=False)
    folder = shutil.copytree(run.path, tmp_path / "run")
    profile.save(folder / "layers.json")
    section = layers_section(folder)
    assert section is not None
    kinds = [kind for kind, _ in section.content]
    assert kinds[:3] == ["text", "figure", "table"]
    names = [row.data["criterion"] for row in section.content[2][1].blocks[0].rows]
    assert names[:2] == ["window", "depth"]
    assert 'id="layers"' in mi.report(folder).read_text("utf-8")


def test_the_page_says_where_text_reads_and_where_an_edit_helps(run):
    """The two can differ: the chosen layers stand beside those that read, with the place of these."""
    profile: Any = SimpleNamespace(window=(2, 3))
    base = SweepScore(1.0, 0.5, 10)

    def row(layers: tuple[int, ...], alpha: float, margin: float) -> GridRow:
        return GridRow(margin, 0.5, 10, layers, alpha, "abs")

    rows = (
        row((5,), 1, 3.0),
        row((5,), 2, 2.9),
        row((4, 5), 1, 2.5),
        row((2, 3), 1, 0.5),
        row((2, 3), 2, 1.5),
    )
    assert run.study is not None
    chosen = Configuration((5,), 1, "abs")
    swept = replace(run.study.selection, grid=rows, baseline=base, chosen=chosen, layer_origin=None)
    text = editing(profile, swept)
    assert "layer 5" in text
    assert "number 3" in text  # of three windows
    assert "3 windows" in text
    assert "+0.50" in text
    assert "0.00" in text  # they do not overlap
    assert "not among" in editing(SimpleNamespace(window=(1,)), swept)  # type: ignore[arg-type]
    origin = LayerOrigin((2, 3), "organism", 24, 24, 0)
    given = editing(profile, replace(swept, layer_origin=origin, chosen=Configuration((2, 3), 1, "abs")))
    assert "layers 2-3" in given.replace("\u2013", "-")
    assert "number" not in given
    assert "study" in editing(profile)


def test_harm_is_a_headline_number(run):
    row = run.effects.select(family="mata", column="margin")[0]
    hurt = replace(
        row,
        comparison=Comparison(
            "baseline", "mata", "baseline", "mata", {"caption_condition": "congruent"}, "margin", "mata"
        ),
        effect=replace(row.effect, difference=-0.8, low=-0.9, high=-0.7, p=1e-4),
        p_holm=1e-3,
    )
    effects = replace(run.effects, rows=(run.effects.primary, hurt))
    page = build_page(replace(run, effects=effects))
    harm = next(key for key in page.keys if key.look == "harm")
    assert harm.value == "\u22120.80"
    assert "agrees with the audio" in harm.detail
