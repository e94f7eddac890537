"""Trace, sweep, layers and study, killed and resumed: the very bytes of one that nobody disturbed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.support.sounds import make_items

ITEMS = 10


def compute(stage: str, clips: Path, out: Path, linger: float) -> None:
    """The stage, in a process of its own, over ten items in batches of two.

    It waits ``linger`` seconds before a part gets its name, so that a watcher sees it begun, however busy the
    machine is.
    """
    import torch

    import mata_interp as mi
    from mata_interp.fusion.recommend import DECIDING
    from tests.tiny import tiny_qwen2_audio

    torch.set_num_threads(1)
    rename = os.replace

    def later(*paths) -> None:
        time.sleep(linger)
        rename(*paths)

    os.replace = later
    lalm = mi.LALM(*tiny_qwen2_audio(seed=0))
    if stage == "study":
        items = make_items(clips, clips=8, splits=("selection", "test"))
        mi.study(lalm, items, out, batch_size=2, progress=False)
        return
    items, settings = make_items(clips)[:ITEMS], {"batch_size": 2, "out": out, "progress": False}
    if stage == "trace":
        mi.trace(lalm, items, query="text", per_query=True, **settings)
    elif stage == "sweep":
        mi.sweep(lalm, items, mi.window_configs(lalm, (0.5, 2.0)), **settings)
    else:
        criteria = [*DECIDING, "restoration_audio", "attribution"]
        mi.fusion_layers(lalm, items, criteria=criteria, **settings)


@pytest.fixture(scope="module")
def start():
    """Start a stage in a new process: forked from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mata_interp.experiments", "mata_interp.lalm", "tests.tiny", __name__])

    def start(stage: str, clips: Path, out: Path, linger: float = 0.0):
        process = context.Process(target=compute, args=(stage, clips, out, linger), daemon=True)
        process.start()
        return process

    return start


def finish(process) -> None:
    process.join()
    assert process.exitcode == 0


def kill_when(process, reached) -> None:
    """kill -9 at the moment that ``reached()`` says."""
    while process.is_alive() and not reached():
        time.sleep(0.0005)
    assert process.is_alive(), f"it ended, with {process.exitcode}, before the moment came"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[0-9]*.npz")} if folder.exists() else {}


@pytest.mark.acceptance
@pytest.mark.parametrize("stage", ["sweep", "trace", "layers"])
def test_a_killed_stage_goes_on_to_the_same_file(start, tmp_path, stage):
    finish(start(stage, tmp_path, tmp_path / "undisturbed"))
    out, folder = tmp_path / "killed", tmp_path / "killed.parts"
    before: dict[str, bytes] = {}
    for number in (1, 3):
        kill_when(start(stage, tmp_path, out, linger=0.1), lambda n=number: len(parts(folder)) >= n)
        assert not out.exists()
        now = parts(folder)
        assert before.items() <= now.items()  # what was done stays done, and is not written again
        assert number <= len(now) < ITEMS / 2
        before = now
    finish(start(stage, tmp_path, out))
    assert out.read_bytes() == (tmp_path / "undisturbed").read_bytes()
    assert not folder.exists()
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.acceptance
def test_a_study_killed_in_every_stage_ends_with_the_same_tables(start, tmp_path):
    finish(start("study", tmp_path, tmp_path / "undisturbed"))
    out = tmp_path / "killed"
    moments = {
        "sweep": lambda: len(parts(out / "selection.nc.parts")) >= 2,
        "trace": lambda: len(parts(out / "trace.nc.parts")) >= 3,
        "sham": lambda: len(strengths(out)) >= 2,
        "measuring": lambda: len(list((out / "parts").glob("*.parquet"))) >= 7,
    }
    for reached in moments.values():
        kill_when(start("study", tmp_path, out, linger=0.05), reached)
    finish(start("study", tmp_path, out))
    assert names(out) == names(tmp_path / "undisturbed")
    for name in ("selection.nc", "trace.nc"):
        assert without_date(out / name).identical(without_date(tmp_path / "undisturbed" / name))
    for name in ("sham.json", "effects.json"):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    from mata_interp.experiments import load_run

    records = (load_run(folder).records for folder in (out, tmp_path / "undisturbed"))
    pd.testing.assert_frame_equal(*records, check_exact=True)


def strengths(out: Path) -> dict[str, float]:
    path = out / "sham.json.parts" / "strengths.json"
    return json.loads(path.read_text()) if path.exists() else {}


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def without_date(path: Path):
    """The content of a netCDF file, but for the manifest's date and command."""
    import xarray as xr

    content = xr.load_dataset(path, engine="scipy")
    for variable in content.variables.values():
        variable.attrs.pop("manifest", None)
    return content
