"""The same items in any form, order or file, for every function that takes items."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import mata_interp as mi
from mata_interp.errors import ArgumentTypeError, RunError, RunWarning
from mata_interp.experiments import load_run
from tests.support.sounds import make_items

CONDITIONS = {"baseline": None}


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=3)


def as_records(items) -> list[dict]:
    root = items[0].audio_root
    return [
        {"id": i.id, "audio": str(Path(root or ".") / i.audio), "question": i.question, "url": i.source,
         "choices": list(i.choices), "answer": i.answer, "condition": i.condition, "caption": i.caption,
         "caption_answer": i.caption_answer, "kind": i.kind, "domain": i.domain, "split": i.split}
        for i in items
    ]  # fmt: skip


ASK = {
    "trace": lambda lalm, items: mi.trace(lalm, items, progress=False)["mass"].values,
    "run": lambda lalm, items: mi.run(lalm, items, CONDITIONS, progress=False).records["predicted"].tolist(),
    "sweep": lambda lalm, items: mi.sweep(lalm, items, [None], progress=False).values,
    "fusion_layers": lambda lalm, items: (
        mi.fusion_layers(lalm, items, criteria=["knockout_text"], progress=False).profiles.values
    ),
    "forecast": lambda lalm, items: mi.forecast(lalm, items, CONDITIONS, progress=False).items,
}


@pytest.mark.parametrize("name", ASK)
def test_generators_records_and_tables(tiny_lalm, items, name):
    ask, few = ASK[name], items[:3]
    expected = ask(tiny_lalm, few)
    forms = (iter(few), as_records(few), pd.DataFrame(as_records(few)), (row for row in as_records(few)))
    for form in forms:
        answer = ask(tiny_lalm, form)
        assert (answer == expected) if isinstance(expected, int | list) else (answer == expected).all()


@pytest.mark.parametrize("name", ASK)
@pytest.mark.parametrize("wrong", ["listening", None, 3, ["a.wav"]], ids=repr)
def test_what_is_no_item_is_one_type_error(tiny_lalm, name, wrong):
    with pytest.raises(ArgumentTypeError):
        ASK[name](tiny_lalm, wrong)


def test_a_study_takes_them_too(tiny_lalm, tmp_path):
    with pytest.raises(ArgumentTypeError):
        mi.study(tiny_lalm, "listening", tmp_path / "study", progress=False)
    assert not (tmp_path / "study").exists()


def test_conditions_without_names_are_one_type_error(tiny_lalm, items):
    for wrong in (mi.Mata(1.0, [1]), [None], None):
        with pytest.raises(ArgumentTypeError, match="baseline"):
            mi.run(tiny_lalm, items, wrong, progress=False)


def test_the_same_items_in_another_order_or_file_go_on(tiny_lalm, items, tmp_path):
    out = tmp_path / "run"
    rows = as_records(items)
    bad = {"id": "bad", "audio": "none.wav", "question": "?", "choices": ["x"], "answer": "x"}
    worse = {**bad, "id": "worse", "choices": []}
    file, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    file.write_text("\n".join(map(json.dumps, [*rows, bad, worse])), "utf-8")
    other.write_bytes("\r\n".join(map(json.dumps, [worse, bad, *rows[::-1]])).encode())
    both = [mi.load_benchmark(path, audio_root="/") for path in (file, other)]
    assert both[0].sha256 != both[1].sha256
    with pytest.warns(RunWarning, match="2 left out"):
        first = mi.run(tiny_lalm, both[0], CONDITIONS, out, progress=False)
    with pytest.warns(RunWarning, match="2 left out"):
        again = mi.run(tiny_lalm, both[1], {**CONDITIONS}, out, progress=False)
    pd.testing.assert_frame_equal(again.records, first.records, check_exact=True)
    parts = {path.name: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    (out / "parts" / min(parts)).unlink()
    with pytest.warns(RunWarning, match="2 left out"):
        mended = mi.run(tiny_lalm, both[1], CONDITIONS, out, progress=False)
    pd.testing.assert_frame_equal(mended.records, first.records, check_exact=True)
    changed = [{**rows[0], "question": "Which sound is last?"}, *rows[1:]]
    with pytest.raises(RunError, match=f"other words or labels.*{rows[0]['id']}"):
        mi.run(tiny_lalm, changed, CONDITIONS, out, progress=False)


def test_home_folders_in_paths(tiny_lalm, items, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = mi.run(tiny_lalm, items[:3], CONDITIONS, "~/runs/a", progress=False)
    assert (tmp_path / "runs" / "a" / "manifest.json").exists()
    assert len(load_run("~/runs/a").records) == len(run.records)
    assert mi.forecast(tiny_lalm, items[:3], CONDITIONS, "~/runs/a", progress=False).seconds is None
    run.save("~/runs/b")
    assert len(mi.Run.load("~/runs/b").records) == len(run.records)
    swept = mi.sweep(tiny_lalm, items[:1], {"none": None}, progress=False)
    mi.save_sweep(swept, "~/sweep.nc")
    assert mi.load_sweep("~/sweep.nc").identical(swept)
    profile = mi.fusion_layers(tiny_lalm, items[:2], criteria=["depth", "knockout_text"], progress=False)
    profile.save("~/profile.json")
    assert mi.FusionProfile.load("~/profile.json").window == profile.window
    assert mi.report("~/runs/a", "~/page.html") == tmp_path / "page.html"
    assert mi.report("~/runs/a").parent == tmp_path / "runs" / "a"
    assert not (tmp_path / "~").exists()
