"""Several processes on one run folder: each part is computed once, by whoever comes first, dead or alive."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from mata_interp.execution.claims import UnitClaims
from mata_interp.experiments import load_run
from mata_interp.experiments.answering import Unit, plan_units
from mata_interp.experiments.conditions import Condition
from tests.support.sounds import make_items

BATCHES, CONDITIONS = 9, ("baseline", "mata", "no audio")


def answer(clips: Path, out: Path, log: Path | None = None, slow: float = 0.0) -> None:
    """The run, in a process of its own, which writes down which units it computes."""
    import torch

    from mata_interp.experiments import run
    from mata_interp.experiments.answering import Work
    from mata_interp.interventions import Mata
    from mata_interp.lalm import LALM
    from tests.tiny import tiny_qwen2_audio

    torch.set_num_threads(1)
    compute = Work.compute

    def telling(self, lalm, unit):
        if log:
            with log.open("a") as file:
                file.write(f"{unit.batch} {unit.audio}\n")
        time.sleep(slow)
        return compute(self, lalm, unit)

    Work.compute = telling
    conditions = {"baseline": None, "mata": Mata(0.5, [1, 2]), "no audio": Condition(audio="none")}
    run(LALM(*tiny_qwen2_audio(seed=0)), make_items(clips), conditions, out, batch_size=2, progress=False)


@pytest.fixture(scope="module")
def start():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mata_interp.experiments", "mata_interp.lalm", "tests.tiny", __name__])

    def start(*arguments):
        process = context.Process(target=answer, args=arguments, daemon=True)
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    process = start(folder, folder / "run")
    process.join()
    assert process.exitcode == 0
    return folder


def parts_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "parts").iterdir()}


def wait_for(happened) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_processes_share_the_work_and_nothing_is_counted_twice(start, alone, tmp_path):
    out, log = tmp_path / "run", [tmp_path / "first", tmp_path / "second"]
    both = [start(alone, out, file, 0.1) for file in log]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    first, second = (file.read_text().splitlines() for file in log)
    assert min(len(first), len(second)) >= 3  # neither only looked on
    assert len({*first, *second}) == len(first) + len(second) == BATCHES * 2  # nothing was done twice
    assert parts_of(out) == parts_of(alone / "run")
    pd.testing.assert_frame_equal(load_run(out).records, load_run(alone / "run").records, check_exact=True)
    assert not (out / "claims.lock").exists()


def test_what_a_killed_process_held_is_done_by_the_other(start, alone, tmp_path):
    out, log = tmp_path / "run", [tmp_path / "first", tmp_path / "second"]
    first = start(alone, out, log[0], 60.0)  # holds its first unit for a minute
    wait_for(log[0].exists)
    second = start(alone, out, log[1])
    wait_for(lambda: (out / "parts").exists() and len(list((out / "parts").glob("*.parquet"))) >= 20)
    assert second.is_alive()
    os.kill(first.pid, signal.SIGKILL)
    second.join(60)
    assert second.exitcode == 0
    held = log[0].read_text().splitlines()
    assert len(held) == 1
    assert log[1].read_text().splitlines()[-1] == held[0]  # last, when it was let go
    assert parts_of(out) == parts_of(alone / "run")


def test_claims_are_of_processes(tmp_path):
    """In one process a claim can be taken again; in another it cannot, until it is let go."""
    context = multiprocessing.get_context("fork")

    def taken_elsewhere(unit: int) -> bool:
        def attempt(answers):
            with UnitClaims(tmp_path / "lock") as claims:
                answers.put(claims.claim(unit))

        answers = context.Queue()
        process = context.Process(target=attempt, args=(answers,))
        process.start()
        process.join()
        return not answers.get()

    with UnitClaims(tmp_path / "lock") as claims:
        assert claims.claim(3)
        assert claims.claim(3)
        assert taken_elsewhere(3)
        assert not taken_elsewhere(4)
        claims.release(3)
        assert not taken_elsewhere(3)
    with UnitClaims(tmp_path / "no such folder" / "lock") as claims:  # no claims
        assert claims.claim(3)


def test_units_have_the_same_number_whatever_the_order_of_conditions():
    conditions = {"b": Condition(audio="none"), "a": Condition(), "c": Condition()}
    batches = [{"items": ["x", "y"]}, {"items": ["z"]}]
    units = plan_units(batches, conditions)
    assert units[:2] == [Unit(0, 0, ("x", "y"), "own", ("a", "c")), Unit(3, 0, ("x", "y"), "none", ("b",))]
    turned = plan_units(batches, dict(reversed(conditions.items())))
    assert [(u.number, u.batch, u.audio) for u in turned] == [(u.number, u.batch, u.audio) for u in units]
    assert len({unit.number for unit in units}) == len(units) == 4
