"""The pages of layer profiles and sweeps, alone and side by side."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

import mata_interp as mi
from mata_interp.cli.app import app
from mata_interp.errors import MataWarning, RunError
from mata_interp.experiments.sweep_file import read_sweep
from mata_interp.fusion import FusionProfile
from mata_interp.reporting.stages import kind_of
from mata_interp.reporting.writing import page_of
from mata_interp.sweeps import margin

from .browser import MISSING, chromium, visit
from .small import small_study
from .test_side_by_side import ids, tables


def invoke(*arguments: object) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MataWarning)
        done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A layer profile, and two sweeps that share some edits."""
    small, folder = small_study(), tmp_path_factory.mktemp("stages")
    on = ("--model", small.model, "--benchmark", small.benchmark)
    layers = ("--criteria", "knockout_text,depth", "--out", folder / "layers.json", "--json")
    (folder / "told.json").write_text(invoke("layers", *on, *layers))
    for name, strengths in (("one", "0.5,2"), ("two", "2,4")):
        edits = ("--layers", "0;1-2", "--alpha", strengths, "--out", folder / name)
        invoke("sweep", *on, *edits, *(("--items", 6) if name == "two" else ()))
    return folder


def test_kinds(folder):
    assert kind_of(folder / "one") == kind_of(folder / "one" / "sweep.nc") == "sweep"
    assert kind_of(folder / "layers.json") == kind_of(folder) == "layers"
    assert kind_of(small_study().run) == kind_of(folder / "none") == "run"


def test_the_page_of_a_profile(folder):
    profile = FusionProfile.load(folder / "layers.json")
    page = page_of([folder / "layers.json"])
    assert ids(page)[:2] == ["layers", "provenance"]
    assert page.rows[0].keys[0].data["verdict"] == profile.verdict
    rows = tables(page)["Windows by criterion."].blocks[0].rows
    assert [row.data["criterion"] for row in rows] == ["window", "knockout_text", "depth"]
    assert (folder / "layers.html").exists()  # the command wrote it, with itself as the way to reproduce it
    assert json.loads((folder / "told.json").read_text())["report"] == str(folder / "layers.html")
    assert mi.report(folder / "layers.json") == folder / "layers.html"


def test_profiles_side_by_side(folder, tmp_path):
    profile = FusionProfile.load(folder / "layers.json")
    shutil.copy(folder / "layers.json", tmp_path / "other.json")
    page = page_of([folder / "layers.json", tmp_path / "other.json"])
    rows = tables(page)["Recommended windows."].blocks[0].rows
    assert [row.data["run"] for row in rows] == ["A", "B"]
    assert rows[1].cells[5] == "1.00"  # the same window
    assert f"{len(profile.chosen_on):,} of its" in page.answer[1]
    assert mi.report([folder / "layers.json", tmp_path / "other.json"], tmp_path / "page.html").exists()


def test_the_page_of_a_sweep(folder):
    page = page_of([folder / "one"])
    assert ids(page) == ["map", "provenance", "left-out"]
    swept = read_sweep(folder / "one" / "sweep.nc")
    margins = margin(swept).isel(item=(swept["answer"] >= 0).values).mean("item")
    rows = [row for block in tables(page)["Edits by their change."].blocks for row in block.rows]
    assert len(rows) == 5  # two sets of layers at two strengths, and no edit
    for row in rows[:-1]:
        expected = margins.sel(configuration=row.data["configuration"]) - margins[0]
        assert float(row.data["change"]) == pytest.approx(float(expected))
    assert (folder / "one" / "report.html").exists()
    assert dict(page.sections[1].content[1][1])["Batches"]


def test_sweeps_side_by_side(folder):
    page = page_of([folder / "one", folder / "two"])
    assert ids(page) == ["shared", "maps", "provenance"]
    table = next(part for name, part in tables(page).items() if name.startswith("Edits that A and B"))
    rows = table.blocks[0].rows
    assert len(rows) == 2  # both sets of layers at strength 2
    assert {abs(float(row.data["difference"])) for row in rows} == {0.0}
    svgs = [str(part.svg) for section in page.sections for kind, part in section.content if kind == "figure"]
    marks = [mark.split('"')[0] for svg in svgs for mark in svg.split(' id="')[1:]]
    assert len(marks) == len(set(marks))


def test_without_common_edits_or_items(folder, tmp_path):
    small = small_study()
    on = ("--model", small.model, "--benchmark", small.benchmark, "--layers", "0;1-2", "--alpha")
    invoke("sweep", *on, "7", "--out", tmp_path / "strong")
    page = page_of([folder / "one", tmp_path / "strong"])
    assert [kind for kind, _ in page.sections[0].content] == ["notice"]
    with pytest.raises(RunError, match="twice"):
        page_of([folder / "one", folder / "one"])
    (tmp_path / "sweep.nc").write_bytes(b"no netCDF")
    with pytest.raises(RunError, match=r"sweep\.nc"):
        page_of([tmp_path])
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(RunError, match=r"broken\.json"):
        page_of([tmp_path / "broken.json"])


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
@pytest.mark.parametrize("width", [390, pytest.param(1440, marks=pytest.mark.acceptance)])
def test_in_a_browser(folder, tmp_path, width):
    shutil.copy(folder / "layers.json", tmp_path / "other.json")
    pages = [
        mi.report(folder / "layers.json"),
        mi.report(folder / "one"),
        mi.report([folder / "layers.json", tmp_path / "other.json"], tmp_path / "layers.html"),
        mi.report([folder / "one", folder / "two"], tmp_path / "sweeps.html"),
    ]
    with chromium() as browser:
        for path in pages:
            with visit(browser, path, width) as page:
                assert page.logged == []
                assert page.requested == []
                assert page.overflowing() == []
                assert page.faults() == []
                assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_shares_have_their_values():
    from mata_interp.reporting.figures.shares import Share, shares

    mean = np.array([0.1, 0.4, 0.2])
    one = Share("one", (0, 1, 2), mean, mean - 0.05, mean + 0.05)
    two = Share("two", (0, 1, 2, 3), np.full(4, 0.3), np.full(4, 0.2), np.full(4, 0.4))
    figure = shares([one, two], 7.6)
    lines = [line for line in figure.axes[0].get_lines() if line.get_label() in ("one", "two")]
    np.testing.assert_allclose(lines[0].get_ydata(), 100 * mean)
    np.testing.assert_allclose(lines[1].get_xdata(), [0, 1 / 3, 2 / 3, 1])  # over depth
    assert shares([one], 3.9).axes[0].get_lines()[0].get_xdata().tolist() == [0, 1, 2]
