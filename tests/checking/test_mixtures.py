"""mi.check on mixtures of experts in half precision: flips of experts are told from faults."""

from __future__ import annotations

import pytest
import torch

import mata_interp as mi
from mata_interp.checking import context, eager, running
from mata_interp.lalm.discovery import experts
from mata_interp.lalm.discovery.experts import Flips

from . import test_sabotage as faults
from .mixtures import mixture
from .small import NAMES

HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@HALF
def test_a_right_mixture_passes_and_says_how_many_experts_flipped(dtype):
    report = mi.check(mixture(dtype))
    assert report.ok, report
    assert {line.verdict for line in report.lines} == {"pass"}
    edit = report["edit reaches the logits"]
    assert "choices of experts differ: compared with the same experts" in edit.measured
    moved = float(edit.measured.split("reference ")[1].split(",")[0])
    assert edit.off < edit.bound < moved / 3


def test_without_the_same_experts_it_would_be_no_check(monkeypatch):
    """What flips do where they are left alone: off by far more, within a bound that binds nothing."""
    right = mi.check(mixture())["edit reaches the logits"]
    for module in (eager, context):
        monkeypatch.setattr(module, "agreeing", lambda structure, routing, real, run: (run(), Flips()))
    wrong = mi.check(mixture())["edit reaches the logits"]
    assert wrong.off > 3 * right.off
    assert wrong.bound > 2 * right.bound


def test_float32_needs_none_of_it():
    report = mi.check(mixture(torch.float32))
    assert report.ok, report
    assert "experts" not in report["rows equal eager attention"].measured
    assert max(line.off / max(line.bound, 1e-9) for line in report.lines) < 0.3


def twice_the_scaling(patched):
    faults.wrong_scaling(patched, 2.0)


FAULTS = {
    twice_the_scaling: {"rows equal eager attention", "trace equals eager attention"},
    faults.mask_off_by_one: {"rows equal eager attention", "trace equals eager attention"},
    faults.masses_to_the_wrong_group: {"trace equals eager attention"},
    faults.dropped_edit: {"edit reaches the logits", "prefill and decode as one pass"},
    faults.half_an_edit: {"edit reaches the logits", "prefill and decode as one pass"},
    faults.decode_phase_lost: {"prefill and decode as one pass"},
}


@pytest.mark.parametrize("broken", FAULTS, ids=lambda f: f.__name__)
def test_faults_are_found_in_bfloat16(monkeypatch, broken):
    wanted = FAULTS[broken]
    chosen = [check for check in running.in_order() if check.name in wanted]
    monkeypatch.setattr(running, "in_order", lambda: chosen)
    lalm = mixture()
    broken(monkeypatch)
    failed = mi.check(lalm).failed
    assert {line.name for line in failed} == wanted
    assert all(line.remedy.startswith("If this passes in float32") for line in failed)


def test_a_choice_that_cannot_be_read_is_no_pass_and_no_fail(monkeypatch):
    monkeypatch.setattr(experts, "_choice_among", lambda given: None)
    report = mi.check(mixture())
    assert [line.name for line in report.lines] == NAMES
    open_ = [line for line in report.lines if line.verdict == "not comparable"]
    assert open_
    assert not report.ok
    assert not report.failed
    for line in open_:
        assert line.off > line.bound
        assert "its choice of experts cannot be read here" in line.measured
        assert "check in float32" in line.remedy
    text = " ".join(str(report).split())
    assert f"0 failed, {len(open_)} not comparable, 0 not applicable" in text
    assert f"{open_[0].name}: NOT COMPARABLE" in text
    assert mi.check(mixture(torch.float32)).ok  # where nothing flips, nothing needs to be read
