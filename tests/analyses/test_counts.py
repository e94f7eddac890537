"""What the instruments ask of an accelerator: kernels, copies and waits, counted on the pretend one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.second_device.accelerator import compiler
from tests.support.analyses import ROOT, run_analysis


@pytest.fixture(scope="module")
def counted() -> dict[str, dict[str, Any]]:
    if compiler() is None:
        pytest.skip("no C++ compiler for the pretend accelerator")
    return {row["name"]: row for row in run_analysis("instrument_cost.py", "--counts")}


def test_every_target_is_reached(counted):
    assert sum(row["target"] is not None for row in counted.values()) == 7
    assert [name for name, row in counted.items() if row["reached"] is False] == []


@pytest.mark.parametrize("queries", ["last query", "text queries"])
def test_a_trace_waits_twice_for_the_device(counted, queries):
    row = counted[f"trace, {queries}, more than a plain forward"]
    assert 0 <= row["synchronisations"] <= 2
    assert counted["plain forward"]["kernels"] > 300  # what was counted is a whole model


def test_a_trace_of_an_answer_waits_twice_whatever_its_length(counted):
    row = counted["trace, generated answer, more than a generation"]
    assert row["synchronisations"] <= 2


def test_mata_launches_twelve_kernels_a_layer_and_waits_for_none(counted):
    for name in ("MATA in a forward, for each layer", "MATA in a generation, for each token and layer"):
        assert 5 < counted[name]["kernels"] <= 12
        assert counted[name]["synchronisations"] == 0
        assert counted[name]["copies_to_device"] == 0


def test_sampling_waits_for_no_token(counted):
    row = counted["sampling, for each token, more than greedy"]
    assert row["kernels"] > 10
    assert row["synchronisations"] == 0


def test_a_sweep_of_ten_times_as_many_configurations_launches_no_more(counted):
    row = counted["sweep of 200, more than of 20 configurations"]
    assert (row["kernels"], row["synchronisations"], row["copies_to_device"]) == (0, 0, 0)


def test_without_a_compiler_it_says_so(tmp_path):
    script = str(ROOT / "analyses" / "instrument_cost.py")
    done = subprocess.run(
        [sys.executable, script, "--counts"],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "CXX" in done.stderr
    assert "Traceback" not in done.stderr
