"""The files for a paper: figures whose numbers are those of the CSV, tables, methods and their references."""

from __future__ import annotations

import io
import json
import re
import shutil
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import mata_interp as mi
from mata_interp.errors import RunError
from mata_interp.experiments import load_run
from mata_interp.reporting.exports import methods_text, page_files
from mata_interp.reporting.exports.tables import latex, latex_text, markdown, table_csv
from mata_interp.reporting.figures.svg import WIDE
from mata_interp.reporting.paper import default_folder
from mata_interp.reporting.parts import Block, FigurePart, Row, Table, parts_of
from mata_interp.reporting.writing import page_of
from tests.reporting.small import HOSTILE, small_study
from tests.support.command_line import invoke

ALWAYS = {"forest", "flow", "margins", "heat-map", "profile", "grid", "dose-response"}


@pytest.fixture(scope="module")
def run():
    return load_run(small_study().run)


@pytest.fixture(scope="module")
def page():
    return page_of([small_study().run])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mi.paper(small_study().run, tmp_path_factory.mktemp("written") / "paper")


def figures_of(page) -> list[FigurePart]:
    return [part for part in parts_of(page) if isinstance(part, FigurePart)]


def test_every_figure_of_the_page_has_two_vector_files_and_its_numbers(folder, page):
    names = {figure.id for figure in figures_of(page)}
    assert names >= ALWAYS
    for name in names:
        root = ET.parse(folder / f"{name}.svg").getroot()
        assert root.tag.endswith("svg")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
        assert len(pd.read_csv(folder / f"{name}.csv"))


def test_the_page_offers_the_same_texts(folder, page):
    """What the buttons of the page save is what stands in the folder, byte for byte."""
    files = page_files(page)
    written = {path.name for path in folder.iterdir()}
    assert written == set(files) | {f"{f.id}.{kind}" for f in figures_of(page) for kind in ("svg", "pdf")}
    html = (small_study().run / "report.html").read_text("utf-8")
    embedded = re.search(r'<script type="application/json" id="files">(.*?)</script>', html, re.DOTALL)
    assert json.loads(embedded[1]) == files
    for name, text in files.items():
        assert (folder / name).read_bytes() == text.encode(), name
        assert f'data-file="{name}"' in html


def drawn_numbers(figure: Figure) -> set[float]:
    """Every number of every mark in the figure, rounded."""
    arrays: list[np.ndarray] = []
    for ax in figure.axes:
        for line in ax.get_lines():
            arrays += [np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)]
        for patch in ax.patches:
            sizes = [getattr(patch, f"get_{side}", lambda: np.nan)() for side in ("height", "width")]
            arrays.append(np.array(sizes, float))
        for collection in ax.collections:
            offsets = np.ma.filled(np.ma.asarray(collection.get_offsets(), float), np.nan).ravel()
            array = collection.get_array()
            paths = [path.vertices.ravel() for path in collection.get_paths()]
            arrays += [
                offsets,
                *paths,
                *([] if array is None else [np.ma.filled(np.ma.asarray(array, float), np.nan).ravel()]),
            ]
    return {rounded(value) for values in arrays for value in values if np.isfinite(value)}


def rounded(value: float) -> float:
    return float(f"{value:.9g}")


SHOWN = ("value", "low", "high", "difference", "before", "after")


def check_numbers(figures: list[FigurePart]) -> None:
    """The numbers of every CSV are drawn, in their unit or in per cent; those of flows are written."""
    for each in figures:
        figure, table = each.draw(WIDE), pd.read_csv(io.StringIO(each.csv))
        if each.id == "flow":
            texts = [text.get_text() for ax in figure.axes for text in ax.texts]
            for count in table.loc[table["items"] > 0, "items"]:  # an empty band is not drawn
                assert any(text.split()[0] == str(count) for text in texts), texts
            continue
        columns = [name for name in table if name.removesuffix("_first").removesuffix("_second") in SHOWN]
        assert columns, each.id
        numbers = table[columns].to_numpy(dtype=float)
        numbers = set(numbers[np.isfinite(numbers)].tolist())
        drawn = drawn_numbers(figure)
        missing = {value for value in numbers if not {rounded(value), rounded(100 * value)} & drawn}
        assert not missing, (each.id, missing)


def test_the_csv_has_the_numbers_that_are_drawn(page):
    check_numbers(figures_of(page))


def test_numbers_are_those_of_the_run(folder, run):
    table = pd.read_csv(folder / "forest.csv")
    primary = run.effects.primary.effect
    assert table.iloc[0][["difference", "low", "high"]].tolist() == pytest.approx(
        [primary.difference, primary.low, primary.high], nan_ok=True
    )
    shown = pd.read_csv(folder / "profile.csv").query("panel == 'audio share' and layer == 0")["value"].item()
    traced = mi.audio_share(run.trace, sink=False).mean("head", skipna=True)
    assert shown == pytest.approx(float(traced.sel(layer=0).mean()))
    grid = pd.read_csv(folder / "grid.csv")
    assert len(grid) == len(run.study.selection.grid)
    best = max(run.study.selection.grid, key=lambda row: row.margin)
    at = grid.query(f"first == {best.layers[0]} and last == {best.layers[-1]} and alpha == {best.alpha}")
    assert at["value"].item() == best.margin - run.study.selection.baseline.margin
    margins = pd.read_csv(folder / "margins.csv").set_index("item")["after"]
    mata = run.records.query("condition == 'mata'").set_index("item")["margin"]
    np.testing.assert_array_equal(margins, mata.loc[margins.index])


def test_figures_are_the_same_every_time(folder, tmp_path):
    again = mi.paper(small_study().run, tmp_path / "again")
    assert {path.name for path in again.iterdir()} == {path.name for path in folder.iterdir()}
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_several_runs_have_files_too(tmp_path):
    """Figures, tables and methods of a comparison; the folder stands beside its page."""
    one, two = small_study().run, tmp_path / "two"
    shutil.copytree(one, two)
    page = page_of([one, two])
    assert {figure.id for figure in figures_of(page)} >= {"levels", "forest", "paired", "shares"}
    check_numbers(figures_of(page))
    out = tmp_path / "compare.html"
    printed = json.loads(invoke("report", one, two, "--paper", "--out", out, "--json"))
    folder = tmp_path / "compare-paper"
    assert printed == {**printed, "report": str(out), "paper": str(folder)}
    written = {path.name for path in folder.iterdir()}
    assert written >= {"paired.svg", "paired.pdf", "paired.csv", "A-methods.md", "B-methods.tex"}
    assert {"table-paired-differences-of-accuracy.tex", "table-paired-differences-of-accuracy.md"} <= written
    for name, text in page_files(page).items():
        assert (folder / name).read_bytes() == text.encode()


def test_the_default_folder_is_beside_the_page(tmp_path):
    for name in ("one", "two"):
        shutil.copytree(small_study().run, tmp_path / name)
    paths = [tmp_path / "one", tmp_path / "two"]
    (tmp_path / "layers.json").write_text("{}")
    assert default_folder(paths) == mi.report(paths).with_name("compare-one-two-paper")
    assert default_folder(paths[:1]) == tmp_path / "one" / "paper"
    assert default_folder([tmp_path / "layers.json"]) == tmp_path / "layers-paper"


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


def test_every_table_of_the_page_is_there_in_every_form(folder, page):
    tables = [part for part in parts_of(page) if isinstance(part, Table)]
    assert len(tables) >= 3
    tex, md, csv = (sorted(folder.glob(f"table-*.{kind}")) for kind in ("tex", "md", "csv"))
    assert len(tex) == len(md) == len(csv) == len(tables)
    for table in tables:
        read = pd.read_csv(folder / f"{table.name}.csv", dtype=str, keep_default_na=False)
        shown = [[*row.cells] for block in table.blocks for row in block.rows]
        start = 1 if read.columns[0] == "group" else 0
        assert read.iloc[:, start : start + len(table.columns)].to_numpy().tolist() == shown
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
    table = pd.read_csv(folder / "forest.csv")
    assert table["difference"].tolist() == pytest.approx(run.compare()["difference"].tolist())
    text = (folder / "methods.md").read_text(encoding="utf-8")
    assert "hypothesis" not in text
    assert "MATA" in text


def test_numbers_behind_a_row_are_exact():
    rows = [Row(["a", "+6.1"], data={"difference": "0.0612345678901234", "role": "mata"}), Row(["b", ""])]
    read = pd.read_csv(io.StringIO(table_csv(Table("T", ("", "change"), [Block(rows, "first")]))))
    assert list(read.columns[2:]) == ["change", "exact_difference"]
    assert read["exact_difference"].iloc[0] == 0.0612345678901234
    assert read["exact_difference"].isna().tolist() == [False, True]
    assert read["group"].tolist() == ["first", "first"]


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(RunError):
        mi.paper(tmp_path)
    assert not list(tmp_path.iterdir())


def test_user_settings_of_matplotlib_do_not_reach_the_files(folder, tmp_path):
    with matplotlib.rc_context({"font.size": 40, "axes.grid": True}):
        again = mi.paper(small_study().run, tmp_path / "again")
    assert (again / "forest.svg").read_bytes() == (folder / "forest.svg").read_bytes()


def test_csv_reads_back_in_full_precision(folder):
    text = (folder / "margins.csv").read_text(encoding="utf-8")
    again = io.StringIO()
    pd.read_csv(io.StringIO(text), float_precision="round_trip").to_csv(again, index=False)
    assert again.getvalue() == text


def test_the_command_writes_page_and_files(run, tmp_path):
    saved = run.save(tmp_path / "run")
    printed = json.loads(invoke("report", saved, "--paper", "--json"))
    assert printed["paper"] == str(saved / "paper")
    assert (saved / "paper" / "methods.tex").exists()
    assert (saved / "report.html").exists()
