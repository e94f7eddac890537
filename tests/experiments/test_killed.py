"""A run that is stopped, again and again, ends with the very tables of a run that nobody disturbed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mata_interp.errors import RunWarning
from mata_interp.experiments import load_run
from tests.support.sounds import make_items

# Moment -> how the run is stopped there, and the number of parts at which it waits for that.
MOMENTS = {
    "manifest": (signal.SIGKILL, 0),
    "first part": (signal.SIGINT, 1),  # Ctrl-C
    "temporary file": (signal.SIGKILL, 4),
    "twelfth part": (signal.SIGKILL, 12),
}


def answer(clips: Path, out: Path, wait_at: int | None) -> None:
    """The run, in a process of its own: 18 items in batches of 2 under 6 conditions, 54 parts.

    With ``wait_at`` parts, it waits before the next part gets its name, until it is stopped: however busy the
    machine is, a watcher finds it there.
    """
    import torch

    from mata_interp.experiments import Condition, run
    from mata_interp.interventions import Mata
    from mata_interp.lalm import LALM, Decoding
    from tests.tiny import tiny_qwen2_audio

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without it
    rename = os.replace

    def wait_and_rename(source, target) -> None:
        while wait_at is not None and str(target).endswith(".parquet") and count_parts(out) >= wait_at:
            time.sleep(0.01)
        rename(source, target)

    os.replace = wait_and_rename
    mata = Mata(alpha=0.5, layers=[1, 2])
    conditions = {
        "baseline": None,
        "mata": mata,
        "other audio": Condition(audio="other"),
        "mata + other audio": Condition(mata, audio="other"),
        "no audio": Condition(audio="none"),
        "words": Condition(mata, decoding=Decoding(4, temperature=1.0)),
    }
    lalm = LALM(*tiny_qwen2_audio(seed=0))
    run(lalm, make_items(clips), conditions, out, batch_size=2, progress=False)


@pytest.fixture(scope="module")
def start():
    """Start the run in a new process: forked from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mata_interp.experiments", "mata_interp.lalm", "tests.tiny", __name__])

    def start(clips: Path, out: Path, wait_at: int | None = None):
        process = context.Process(target=answer, args=(clips, out, wait_at), daemon=True)
        process.start()
        return process

    return start


def count_parts(out: Path, suffix: str = ".parquet") -> int:
    names = os.listdir(out / "parts") if (out / "parts").exists() else []
    return sum(name.endswith(suffix) for name in names)


def reached(moment: str, out: Path) -> bool:
    if not (out / "manifest.json").exists() or count_parts(out) < MOMENTS[moment][1]:
        return False
    return moment != "temporary file" or count_parts(out, ".tmp") > 0


def stop(process, moment: str, out: Path) -> None:
    while process.is_alive() and not reached(moment, out):
        time.sleep(0.0005)
    assert process.is_alive(), f"the run ended, with {process.exitcode}, before the moment came: {moment}"
    os.kill(process.pid, MOMENTS[moment][0])
    process.join(60)
    assert process.exitcode, f"the run goes on after signal {MOMENTS[moment][0]}"


def parts_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "parts").iterdir()}


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder, folder / "run")
    process.join()
    assert process.exitcode == 0
    return folder


def test_stopped_at_every_moment_and_resumed_it_is_the_same_run_bit_for_bit(start, undisturbed, tmp_path):
    out = tmp_path / "run"
    before = 0
    for moment, (_, parts) in MOMENTS.items():
        stop(start(undisturbed, out, parts), moment, out)
        if (out / "parts").exists():
            with pytest.warns(RunWarning, match=r"part\(s\) are missing"):
                half = load_run(out)
            finished = len(list((out / "parts").glob("*.parquet")))
            assert 0 <= half.missing == 54 - finished < 54
            assert finished >= before  # what was done stays done
            before = finished
    last = start(undisturbed, out)
    last.join()
    assert last.exitcode == 0
    assert parts_of(out) == parts_of(undisturbed / "run")  # no leftovers either
    assert not list(out.glob(".*"))
    pd.testing.assert_frame_equal(
        load_run(out).records, load_run(undisturbed / "run").records, check_exact=True
    )


@pytest.mark.acceptance
@pytest.mark.parametrize("kills", [40])
def test_killed_at_random_moments_it_is_the_same_run_bit_for_bit(start, undisturbed, tmp_path, kills):
    """kill -9, whatever the process is doing, from its first moment to its last."""
    began = time.monotonic()
    again = start(undisturbed, tmp_path / "timed")
    again.join()
    whole = time.monotonic() - began
    rng = np.random.default_rng(kills)
    expected = parts_of(undisturbed / "run")
    out, killed = tmp_path / "run", 0
    while killed < kills:
        process = start(undisturbed, out)
        process.join(timeout=float(rng.uniform(0, whole)))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed += 1
            there = parts_of(out) if (out / "parts").exists() else {}
            whole_ones = {name: data for name, data in there.items() if name in expected}
            assert all(expected[name] == data for name, data in whole_ones.items())  # a part is whole or not
        else:
            assert process.exitcode == 0
            assert parts_of(out) == expected
            shutil.rmtree(out)
    last = start(undisturbed, out)
    last.join()
    assert last.exitcode == 0
    assert parts_of(out) == expected
    pd.testing.assert_frame_equal(
        load_run(out).records, load_run(undisturbed / "run").records, check_exact=True
    )
