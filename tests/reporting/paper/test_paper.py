"""The files for a paper: figures whose numbers are those of the CSV, tables, methods and their references."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import mata_interp as mi
from mata_interp.errors import RunError
from mata_interp.experiments import load_run
from mata_interp.reporting.paper import paper_links
from mata_interp.reporting.paper.figures import figures_of
from mata_interp.reporting.paper.methods import methods_text
from mata_interp.reporting.paper.tables import latex, latex_text, markdown, tables_of
from mata_interp.reporting.parts import Block, Row, Table
from tests.reporting.small import HOSTILE, small_study
from tests.support.command_line import invoke

ALWAYS = {"audio-share", "token-groups", "heads", "change-in-accuracy", "items"}


@pytest.fixture(scope="module")
def run():
    return load_run(small_study().run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mi.paper(small_study().run, tmp_path_factory.mktemp("written") / "paper")


def test_every_figure_has_two_vector_files_and_its_numbers(folder, run):
    names = {figure.name for figure in figures_of(run)}
    assert names >= ALWAYS
    assert {"dose-response"} <= names
    assert any(name.startswith("windows-alpha-") for name in names)
    for name in names:
        root = ET.parse(folder / f"{name}.svg").getroot()
        assert root.tag.endswith("svg")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
        assert len(pd.read_csv(folder / f"{name}.csv"))


def drawn_numbers(figure: Figure) -> set[float]:
    """Every number of every mark on the axes, rounded."""
    found: list[np.ndarray] = []
    ax = figure.axes[0]
    for line in ax.get_lines():
        found += [np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)]
    for patch in ax.patches:
        found.append(np.array([getattr(patch, "get_height", lambda: np.nan)()], float))
    for collection in ax.collections:
        offsets = np.ma.filled(np.ma.asarray(collection.get_offsets(), float), np.nan).ravel()
        array = collection.get_array()
        paths = [path.vertices.ravel() for path in collection.get_paths()]
        found += [
            offsets,
            *paths,
            *([] if array is None else [np.ma.filled(np.ma.asarray(array, float), np.nan).ravel()]),
        ]
    return {float(f"{value:.9g}") for values in found for value in values if np.isfinite(value)}


SHOWN = ("value", "low", "high", "difference", "before", "after")


def test_the_csv_has_the_numbers_that_are_drawn(folder, run):
    for each in figures_of(run):
        figure = Figure()
        each.draw(figure.subplots())
        table = pd.read_csv(folder / f"{each.name}.csv")
        scale = 100 if each.name == "change-in-accuracy" else 1
        columns = [name for name in SHOWN if name in table]
        assert columns, each.name
        numbers = scale * table[columns].to_numpy(dtype=float)
        numbers = {float(f"{value:.9g}") for value in numbers[np.isfinite(numbers)]}
        assert numbers <= drawn_numbers(figure), (each.name, numbers - drawn_numbers(figure))


def test_numbers_are_those_of_the_run(folder, run):
    table = pd.read_csv(folder / "change-in-accuracy.csv")
    primary = run.effects.primary.effect
    assert table.iloc[0][["difference", "low", "high"]].tolist() == pytest.approx(
        [primary.difference, primary.low, primary.high]
    )
    share = pd.read_csv(folder / "audio-share.csv")
    traced = mi.audio_share(run.trace).mean("head", skipna=True)
    one = share.loc[(share["condition"] == "neutral") & (share["layer"] == 0), "value"].item()
    here = traced["condition"].values == "neutral"
    assert one == pytest.approx(float(traced.sel(layer=0).values[here].mean()))
    grid = pd.concat(pd.read_csv(path) for path in folder.glob("windows-alpha-*.csv"))
    assert len(grid) == len(run.study.selection.grid)


def test_figures_are_the_same_every_time(folder, tmp_path):
    again = mi.paper(small_study().run, tmp_path / "again")
    assert {path.name for path in again.iterdir()} == {path.name for path in folder.iterdir()}
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


# ---------------------------------------------------------------------------------------------------- tables
def balanced(tex: str) -> bool:
    depth = 0
    for token in re.findall(r"\\.|[{}]", tex):
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
    return depth == 0


def cells_of(tex: str) -> list[list[str]]:
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")]
    rows = [line.strip().removesuffix(r"\\").strip() for line in body.splitlines()[1:]]
    return [re.split(r"(?<!\\)&", row) for row in rows if row and not row.startswith(("\\addl", "\\multi"))]


def test_every_table_of_the_page_is_there_in_both_forms(folder, run):
    tables = list(tables_of(run))
    assert len(tables) >= 3
    tex, md = sorted(folder.glob("table-*.tex")), sorted(folder.glob("table-*.md"))
    assert len(tex) == len(md) == len(tables)
    for path in tex:
        text = path.read_text(encoding="utf-8")
        assert balanced(text)
        for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption", r"\label"):
            assert text.count(rule) == 1
        columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])
        assert [row for row in cells_of(text) if len(row) != columns] == [], path.name
    for path in md:
        rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_hostile_texts_are_only_texts():
    texts = [HOSTILE, r"a\b & c_d % $x$ #1 {y} ~ ^", "x | y\nz", "\u22121.5 \u2192 2\u202f% [\u221e]"]
    table = Table(
        "A title_1", ("a & b", "c"), [Block([Row([text, "1"]) for text in texts], "50 % & more")], "See #1."
    )
    tex = latex(table, "tab:x")
    assert balanced(tex)
    assert not re.search(r"(?<!\\)[#%_]", tex)
    assert "$-$1.5" in tex
    assert tex.count(r"\$x\$") == 1
    assert [len(row) for row in cells_of(tex.replace("\nz", " z"))] == [2] * len(texts)
    md = markdown(table)
    rows = [line for line in md.splitlines() if line.startswith("|")]
    assert len(rows) == 3 + len(texts)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert "<script" not in md.replace(r"\<script", "")


def test_latex_text_escapes_every_special_character_once():
    assert latex_text("a_b") == r"a\_b"
    assert latex_text("\\{}") == r"\textbackslash{}\{\}"
    assert latex_text("95\u202f%") == r"95\,\%"


# --------------------------------------------------------------------------------------------------- methods
def test_methods_say_what_was_run_and_cite_what_they_use(folder, run):
    text = (folder / "methods.md").read_text(encoding="utf-8").strip()
    assert text == methods_text(run)
    chosen, manifest = run.study.selection.chosen, run.manifest
    for fact in (
        f"{manifest['data']['items']} items",
        f"{len(run.conditions)} conditions",
        f"rule {chosen.rule}",
        f"alpha {chosen.alpha:g}",
        f"{len(run.study.selection.grid)} configurations",
        f"torch {manifest['model']['versions']['torch']}",
        f"seed {manifest['seed']}",
        run.effects.primary.effect.p_method,
        "2 items could not be used",
    ):
        assert fact in text, fact
    bib = (folder / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([^,]+),", bib, re.MULTILINE))
    cited = set(re.findall(r"@(\w+)", text))
    assert cited == keys
    assert {"wang2025mata", "holm1979", "mata_interp"} <= keys
    assert balanced(bib)
    tex = (folder / "methods.tex").read_text(encoding="utf-8")
    assert set(re.findall(r"\\cite\{(\w+)\}", tex)) == keys
    assert balanced(tex)


def test_a_plain_run_has_its_comparisons_and_no_claims_of_a_study(tmp_path):
    small = small_study()
    items = mi.load_benchmark(small.benchmark)[:6]
    conditions = {"baseline": None, "mata": mi.Mata(1.0, [1])}
    mi.run(mi.LALM.from_pretrained(small.model), items, conditions, out=tmp_path / "run", progress=False)
    folder = mi.paper(tmp_path / "run")
    assert folder == tmp_path / "run" / "paper"
    run = load_run(tmp_path / "run")
    table = pd.read_csv(folder / "change-in-accuracy.csv")
    assert table["difference"].tolist() == pytest.approx(run.compare()["difference"].tolist())
    text = (folder / "methods.md").read_text(encoding="utf-8")
    assert "hypothesis" not in text
    assert "MATA" in text


def test_links_name_every_file(run, tmp_path):
    assert paper_links(run) == ""
    saved = run.save(tmp_path / "run")
    mi.paper(saved)
    html = paper_links(load_run(saved))
    links = set(re.findall(r'href="paper/([^"]+)"', html))
    assert links == {path.name for path in (saved / "paper").iterdir()}


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(RunError):
        mi.paper(tmp_path)
    assert not list(tmp_path.iterdir())


def test_user_settings_of_matplotlib_do_not_reach_the_files(folder, tmp_path):
    with matplotlib.rc_context({"font.size": 40, "axes.grid": True}):
        again = mi.paper(small_study().run, tmp_path / "again")
    assert (again / "heads.svg").read_bytes() == (folder / "heads.svg").read_bytes()


def test_csv_reads_back_in_full_precision(folder):
    text = (folder / "items.csv").read_text(encoding="utf-8")
    again = io.StringIO()
    pd.read_csv(io.StringIO(text), float_precision="round_trip").to_csv(again, index=False)
    assert again.getvalue() == text


def test_the_command_writes_the_files_before_the_page(run, tmp_path):
    saved = run.save(tmp_path / "run")
    printed = json.loads(invoke("report", saved, "--paper", "--json"))
    assert printed["paper"] == str(saved / "paper")
    assert (saved / "paper" / "methods.tex").exists()
    assert (saved / "report.html").exists()
