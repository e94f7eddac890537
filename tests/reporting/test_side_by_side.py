"""Two or more runs on one page: which items they share, what differs, and paired statistics by hand."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import mata_interp as mi
from mata_interp.cli.app import app
from mata_interp.errors import RunError, RunWarning
from mata_interp.reporting.parts import Page, Table
from mata_interp.reporting.side_by_side.comparison_page import build_comparison
from mata_interp.reporting.side_by_side.item_differences import state_of
from mata_interp.reporting.side_by_side.joining import contrasts, overlap, shared_items
from mata_interp.reporting.side_by_side.sides import read_sides, slots
from mata_interp.reporting.writing import page_of
from tests.tiny import tiny_qwen2_audio

from .small import HOSTILE, Small, small_study, write_benchmark

EDIT = mi.Mata(2.0, [1, 2])


@pytest.fixture(scope="module")
def small() -> Small:
    return small_study()


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory) -> Path:
    """Runs that differ in one thing each: model, items, intervention, conditions."""
    folder = tmp_path_factory.mktemp("runs")
    lalm = mi.LALM.from_pretrained(small.model)
    model, processor = tiny_qwen2_audio(seed=5, layers=3)
    other = mi.LALM(model, processor)
    items = mi.load_benchmark(small.benchmark).filter(condition="conflict")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        pair = {"baseline": None, "mata": EDIT}
        mi.run(lalm, items, pair, folder / "a", progress=False)
        mi.run(other, items[2:], pair, folder / "b", progress=False)
        mi.run(lalm, items, {"baseline": None, "weak": mi.Mata(0.2, [0])}, folder / "weak", progress=False)
        mi.run(lalm, items[:2], pair, folder / "first", progress=False)
        mi.run(lalm, items[4:], pair, folder / "last", progress=False)
        mi.run(lalm, items, {"baseline": None}, folder / "plain", progress=False)
        mi.run(lalm, items, {"edited": EDIT}, folder / "edited", progress=False)
        mi.run(
            lalm, items, {"baseline": mi.Condition(decoding=mi.Decoding(max_new_tokens=3))},
            folder / "generated", progress=False,
        )  # fmt: skip
    return folder


def tables(page: Page) -> dict[str, Table]:
    """Title of each table, without its number -> table."""
    return {
        part.title.partition(". ")[2]: part
        for section in page.sections
        for kind, part in section.content
        if kind in ("table", "folded") and isinstance(part, Table)
    }


def ids(page: Page) -> list[str]:
    return [section.id for section in page.sections]


def values(run: mi.Run, condition: str, score: str = "correct") -> pd.Series:
    part = run.records[run.records["condition"] == condition]
    return part.set_index("item")[score].astype(float)


def test_items_are_joined_by_their_hashes(folder):
    sides = read_sides([folder / "a", folder / "b"])
    joined = overlap(*sides)
    here, there = (set(side.run.records["item"]) for side in sides)
    assert set(joined.shared) == here & there
    assert (joined.only_here, joined.only_there) == (len(there - here), len(here - there))
    assert joined.words == joined.sounds == ()
    assert shared_items(sides) == sorted(here & there)


def test_items_with_other_words_or_sound_are_counted_and_not_joined(folder, tmp_path):
    shutil.copytree(folder / "a", tmp_path / "changed")
    manifest = json.loads((folder / "a" / "manifest.json").read_text())
    digests = manifest["data"]["digests"]
    words, sound, *rest = digests
    digests[words] = "0" * 12 + digests[words][12:]
    digests[sound] = digests[sound][:13] + "0" * 12
    side, other = read_sides([folder / "a", folder / "weak"])
    object.__setattr__(other, "run", mi.load_run(folder / "a"))
    other.run.manifest["data"]["digests"] = digests
    joined = overlap(side, other)
    assert (joined.words, joined.sounds) == ((words,), (sound,))
    assert set(joined.shared) == set(rest)


def test_paired_differences_are_those_of_paired_effect(folder):
    sides = read_sides([folder / "a", folder / "b"])
    a, b = (side.run for side in sides)
    shared = shared_items(sides)
    rows = contrasts(sides, slots(sides), "accuracy")
    assert [(row.of_change, row.title) for row in rows] == [
        (False, "without an intervention"), (False, "MATA"), (True, "change by MATA"),
    ]  # fmt: skip
    for row, name in zip(rows, ("baseline", "mata"), strict=False):
        expected = mi.paired_effect(values(a, name)[shared], values(b, name)[shared])
        assert row.effect.difference == pytest.approx(expected.difference)
        assert (row.effect.low, row.effect.high) == pytest.approx((expected.low, expected.high))
        assert row.effect.p == pytest.approx(expected.p)
        assert (row.effect.fixed, row.effect.broken) == (expected.fixed, expected.broken)
    changes = [(values(run, "mata") - values(run, "baseline"))[shared] for run in (a, b)]
    expected = mi.paired_effect(*changes, kind="margin")
    assert rows[2].effect.difference == pytest.approx(np.mean(changes[1]) - np.mean(changes[0]))
    np.testing.assert_allclose(rows[2].effect.low, expected.low)
    np.testing.assert_allclose(rows[2].effect.p, expected.p)
    np.testing.assert_allclose([row.p_holm for row in rows], mi.holm([row.effect.p for row in rows]))


def test_the_page_has_every_number(folder):
    page = page_of([folder / "a", folder / "b"])
    assert ids(page) == ["levels", "effect", "shared", "items", "runs", "provenance"]
    there = tables(page)
    rows = [row for block in there["Paired differences of accuracy."].blocks for row in block.rows]
    sides = read_sides([folder / "a", folder / "b"])
    expected = contrasts(sides, slots(sides), "accuracy")
    assert [float(row.data["difference"]) for row in rows] == [each.effect.difference for each in expected]
    items = there["Items of each run, joined with those of A."].blocks[0].rows
    assert items[1].data["shared"] == str(len(shared_items(sides)))
    cross = there["What became of the same items in A and B."]
    states = {}
    for side in sides:
        before, after = values(side.run, "baseline"), values(side.run, "mata")
        states[side.letter] = {id: state_of(before[id], after[id]) for id in shared_items(sides)}
    for row in cross.blocks[0].rows:
        for name, number in row.data.items():
            if name != "state":
                pairs = [states["A"][id] == row.data["state"] and states["B"][id].replace(" ", "-") == name
                         for id in shared_items(sides)]  # fmt: skip
                assert number == str(sum(pairs))


def test_other_interventions_on_the_same_items(folder):
    sides = read_sides([folder / "a", folder / "weak"])
    main = next(slot for slot in slots(sides) if slot.kind == "main")
    assert main.names == {"A": "mata", "B": "weak"}
    rows = contrasts(sides, slots(sides), "margin")
    same = next(row for row in rows if row.title == "without an intervention")
    assert same.effect.difference == pytest.approx(0, abs=1e-9)  # the same model without an edit
    assert not same.detected
    assert page_of([folder / "a", folder / "weak"]).notes == []


def test_single_conditions_correspond_whatever_they_are(folder):
    sides = read_sides([folder / "plain", folder / "edited"])
    (slot,) = slots(sides)
    assert slot.names == {"A": "baseline", "B": "edited"}
    rows = contrasts(sides, [slot], "accuracy")
    expected = mi.paired_effect(values(sides[0].run, "baseline"), values(sides[1].run, "edited"))
    assert rows[0].effect.difference == expected.difference
    page = build_comparison(sides)
    assert "effect" not in ids(page)
    assert {"levels", "items"} <= set(ids(page))


def test_without_shared_items_nothing_is_paired(folder):
    page = page_of([folder / "first", folder / "last"])
    assert "shared" not in ids(page)
    assert "items" not in ids(page)
    assert len(page.notes) == 1
    items = tables(page)["Items of each run, joined with those of A."].blocks[0].rows
    assert items[1].data["shared"] == "0"


def test_other_ways_of_scoring_are_noticed(folder):
    page = page_of([folder / "plain", folder / "generated"])
    differing = [row.data["differs"] for row in tables(page)["What differs."].blocks[0].rows]
    assert "Answers" in differing
    assert len(page.notes) == 1


def test_three_runs_and_copies(folder, tmp_path):
    shutil.copytree(folder / "a", tmp_path / "copy")
    page = page_of([folder / "a", folder / "b", tmp_path / "copy"])
    assert len(page.notes) == 1
    rows = [r for block in tables(page)["Paired differences of accuracy."].blocks for r in block.rows]
    assert {row.data["runs"] for row in rows} == {"AB", "AC"}
    assert {float(row.data["difference"]) for row in rows if row.data["runs"] == "AC"} == {0.0}


def test_studies_have_captions_and_attention(small, folder):
    page = page_of([small.run, folder / "a"])
    assert "attention" in ids(page)
    assert page.rows[0].keys[0].data["run"] == "A"
    other = small_study(HOSTILE)
    assert len(page_of([small.run, other.run]).notes) == 1  # other ids: no item is shared


def test_what_cannot_be_compared_is_refused(folder, small, tmp_path):
    with pytest.raises(RunError, match="given twice"):
        mi.report([folder / "a", folder / "b" / ".." / "a"])
    with pytest.raises(RunError, match="2 to 26"):
        read_sides([folder / "a"])
    with pytest.raises(RunError, match="No result"):
        mi.report([])
    with pytest.raises(RunError, match=r"manifest\.json"):
        mi.report([folder / "a", tmp_path])
    shutil.copytree(folder / "b", tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    (tmp_path / "old" / "manifest.json").write_text(json.dumps({**manifest, "version": 1}))
    with pytest.raises(RunError, match="old"):
        mi.report([folder / "a", tmp_path / "old"])
    (tmp_path / "sweep.nc").write_bytes(b"")
    with pytest.raises(RunError, match="one kind"):
        mi.report([folder / "a", tmp_path / "sweep.nc"])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(RunError, match=r"notes\.txt"):
        mi.report(tmp_path / "notes.txt")


def test_an_unfinished_run_is_compared_as_far_as_it_is(folder, tmp_path):
    shutil.copytree(folder / "b", tmp_path / "b")
    parts = sorted((tmp_path / "b" / "parts").glob("*.parquet"))
    parts[-1].unlink()
    with pytest.warns(RunWarning):
        page = page_of([folder / "a", tmp_path / "b"])
    assert len(page.notes) == 1


def test_the_command(folder, tmp_path):
    out = tmp_path / "compare.html"
    arguments = ["report", str(folder / "a"), str(folder / "b"), "--out", str(out), "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert json.loads(done.output)["report"] == str(out.resolve())
    assert out.stat().st_size < 8_000_000
    for wrong in (
        ["report", str(folder / "a"), str(folder / "a")],
        ["report", str(folder / "a"), str(folder / "none")],
        ["report", str(folder / "a"), str(folder / "b"), "--add-items", "auto"],
    ):
        assert CliRunner().invoke(app, wrong).exit_code == 2
    page = mi.report([folder / "a", folder / "b"])
    assert page == folder.resolve() / "compare-a-b.html"


def test_hostile_words_stay_text(tmp_path, small):
    items = mi.load_benchmark(write_benchmark(tmp_path / "bench", clips=4, hostile=HOSTILE))
    lalm = mi.LALM.from_pretrained(small.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        for name, edit in (("one", EDIT), (f"two{HOSTILE[:8]}".replace("/", ""), mi.Mata(1.0, [0]))):
            mi.run(lalm, items, {"baseline": None, "mata": edit}, tmp_path / name, progress=False)
    folders = [path for path in tmp_path.iterdir() if (path / "manifest.json").exists()]
    html = mi.report(folders, tmp_path / "page.html").read_text("utf-8")
    assert HOSTILE not in html
    assert "<img" not in html


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [(0, 1, "corrected"), (1, 0, "broken"), (1, 1, "right both times"), (0, 0, "wrong both times"),
     (None, 1, "right"), (None, 0, "wrong"), (0, None, "")],
)  # fmt: skip
def test_states(before, after, state):
    assert state_of(before, after) == state
