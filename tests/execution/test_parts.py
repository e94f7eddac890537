"""Files that are computed part by part: resumed, refused where they are of something else, or mended."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.errors import ExclusionWarning, ItemError, RunError, RunWarning
from mata_interp.execution import MeasuredBatch, Output, measure_batches
from mata_interp.fusion.recommend import DECIDING
from mata_interp.sweeps.run_sweep import SweepBatch
from mata_interp.tracing.run_trace import TraceBatch
from tests.support.sounds import make_items

EDITS = {"none": None, "mata": mi.Mata(1.0, [1, 2]), "knockout": mi.Knockout([0])}


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=3)


class Stopped(Exception):
    pass


def stop_after(monkeypatch, kind: type, batches: int) -> list[int]:
    """Let ``kind`` measure so many batches and then fail; the list grows with every batch it measures."""
    measured: list[int] = []
    measure = kind.__call__

    def counted(self, lalm, batch):
        if len(measured) == batches:
            raise Stopped
        measured.append(len(batch))
        return measure(self, lalm, batch)

    monkeypatch.setattr(kind, "__call__", counted)
    return measured


def trace(lalm, items, out=None, **settings):
    return mi.trace(lalm, items, batch_size=2, progress=False, out=out, **settings)


def sweep(lalm, items, out=None, **settings):
    return mi.sweep(lalm, items, EDITS, batch_size=2, progress=False, out=out, **settings)


def layers(lalm, items, out=None, **settings):
    criteria = [*DECIDING, "restoration_audio", "attribution", "depth"]
    return mi.fusion_layers(lalm, items, criteria=criteria, batch_size=2, progress=False, out=out, **settings)


def test_stopped_work_goes_on_where_it_was(tiny_lalm, items, tmp_path, monkeypatch):
    whole = trace(tiny_lalm, items, tmp_path / "whole.nc")
    with monkeypatch.context() as patch:
        stop_after(patch, TraceBatch, 3)
        with pytest.raises(Stopped):
            trace(tiny_lalm, items, tmp_path / "trace.nc")
    assert len(list((tmp_path / "trace.nc.parts").glob("*.npz"))) == 3
    measured = stop_after(monkeypatch, TraceBatch, 99)
    assert trace(tiny_lalm, items, tmp_path / "trace.nc").identical(whole)
    assert measured == [2, 1]  # two of five batches were left
    assert (tmp_path / "trace.nc").read_bytes() == (tmp_path / "whole.nc").read_bytes()


@pytest.mark.parametrize("compute", [trace, sweep, layers])
def test_a_file_holds_what_is_returned_without_one(tiny_lalm, items, tmp_path, compute):
    plain, written = compute(tiny_lalm, items), compute(tiny_lalm, items, tmp_path / "out")
    again = compute(tiny_lalm, items, tmp_path / "out")
    if compute is layers:
        assert written.to_json() == plain.to_json() == again.to_json()
        assert mi.FusionProfile.load(tmp_path / "out").to_json() == plain.to_json()
        return
    np.testing.assert_array_equal(*(r["mass"] if compute is trace else r for r in (plain, written)))
    assert again.identical(written)
    assert plain.sizes == written.sizes
    assert not (tmp_path / "out.parts").exists()


@pytest.mark.parametrize("compute", [trace, sweep, layers])
def test_other_work_is_refused_and_named(tiny_lalm, items, tmp_path, compute):
    compute(tiny_lalm, items[:3], tmp_path / "out")
    with pytest.raises(
        RunError, match=r"out holds another .*there settings\.prompt_format is 'options', here"
    ):
        compute(tiny_lalm, items[:3], tmp_path / "out", prompt_format="official")
    other = [replace(items[0], question="Who?"), *items[1:3]]
    with pytest.raises(RunError, match=r"there batches\[0\]\[0\]\[1\] is"):
        compute(tiny_lalm, other, tmp_path / "out")
    (tmp_path / "out").write_bytes(b"something else")
    with pytest.raises(RunError, match="out"):
        compute(tiny_lalm, items[:3], tmp_path / "out")


def test_parts_of_other_work_are_refused(tiny_lalm, items, tmp_path, monkeypatch):
    stop_after(monkeypatch, SweepBatch, 1)
    with pytest.raises(Stopped):
        sweep(tiny_lalm, items, tmp_path / "sweep.nc")
    with pytest.raises(
        RunError, match=r"sweep\.nc\.parts holds another sweep: there settings\.prompt_format"
    ):
        sweep(tiny_lalm, items, tmp_path / "sweep.nc", prompt_format="kimi")


@pytest.mark.parametrize("keep", [0, 40, 400])
def test_a_damaged_part_is_named_and_computed_again(tiny_lalm, items, tmp_path, monkeypatch, keep):
    whole = sweep(tiny_lalm, items, tmp_path / "whole.nc")
    with monkeypatch.context() as patch:
        stop_after(patch, SweepBatch, 3)
        with pytest.raises(Stopped):
            sweep(tiny_lalm, items, tmp_path / "sweep.nc")
    part = tmp_path / "sweep.nc.parts" / "00001.npz"
    part.write_bytes(part.read_bytes()[:keep])
    measured = stop_after(monkeypatch, SweepBatch, 99)
    with pytest.warns(RunWarning, match=r"00001\.npz is damaged and is computed again"):
        assert sweep(tiny_lalm, items, tmp_path / "sweep.nc").identical(whole)
    assert measured == [2, 2, 1]


def test_items_left_out_are_in_the_parts(tiny_lalm, items, tmp_path, monkeypatch):
    lost = [items[0], replace(items[1], id="gone", audio="gone.wav"), *items[2:5]]
    with monkeypatch.context() as patch:
        stop_after(patch, TraceBatch, 1)
        with pytest.raises(Stopped):
            trace(tiny_lalm, lost, tmp_path / "trace.nc")
    with pytest.warns(ExclusionWarning, match="4 items used, 1 left out.*'gone'"):
        traced = trace(tiny_lalm, lost, tmp_path / "trace.nc")
    assert traced.sizes["item"] == 4
    assert traced.attrs["excluded"].startswith("gone: audio: ")
    with pytest.raises(ItemError, match="'gone'"):
        trace(tiny_lalm, lost, tmp_path / "strict.nc", strict=True)


def test_prompts_are_traced_part_by_part_too(tiny_lalm, items, tmp_path):
    prompts = [tiny_lalm.prompt(items[:2]), tiny_lalm.prompt(items[2:4])]
    written = trace(tiny_lalm, prompts, tmp_path / "trace.nc")
    np.testing.assert_array_equal(written["mass"], trace(tiny_lalm, items[:4])["mass"])
    with pytest.raises(RunError, match="holds another trace"):
        trace(tiny_lalm, prompts[:1], tmp_path / "trace.nc")


def test_a_part_comes_back_exactly(tiny_lalm, tmp_path):
    arrays = {
        "single": np.array([np.nan, np.inf, -0.0, 1e-45], np.float32),
        "double": np.array([[np.pi, np.nextafter(1, 2)]]),
        "texts": np.array(["", "grün", "a" * 40]),
    }
    part = MeasuredBatch(arrays, {"number": 0.1 + 0.2, "none": None, "list": ["x", 1]})
    output = Output(tmp_path / "out", {"stage": "test"})
    batches, used = [["a"], ["b"]], []

    def measure(lalm, batch):
        used.append(batch)
        return part

    measure_batches(
        tiny_lalm, measure, as_items(batches), label="", progress=False, parts=output.parts(tiny_lalm)
    )
    again = measure_batches(
        tiny_lalm, measure, as_items(batches), label="", progress=False, parts=output.parts(tiny_lalm)
    )
    assert len(used) == 2
    for stored in again:
        assert stored.notes == part.notes
        assert {name: array.tobytes() for name, array in stored.arrays.items()} == {
            name: array.tobytes() for name, array in arrays.items()
        }
        assert [array.dtype for array in stored.arrays.values()] == [array.dtype for array in arrays.values()]
    assert json.loads((tmp_path / "out.parts" / "manifest.json").read_text())["identity"] == {"stage": "test"}


def as_items(batches):
    return [[mi.Item(audio=None, question="?", id=name) for name in batch] for batch in batches]
