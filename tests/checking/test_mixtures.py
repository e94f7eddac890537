"""mi.check on mixtures of experts in half precision: changed choices of experts are no faults, faults are."""

from __future__ import annotations

import pytest
import torch

import mata_interp as mi
from mata_interp.checking import context, eager, running
from mata_interp.checking.registry import ROUNDING, UNSURE
from mata_interp.lalm.discovery import experts
from mata_interp.lalm.discovery.experts import Flips

from . import test_sabotage as faults
from .mixtures import mixture
from .small import NAMES

HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@HALF
def test_a_correct_mixture_passes_and_counts_changed_choices(dtype):
    report = mi.check(mixture(dtype))
    assert report.ok, str(report)
    assert {result.verdict for result in report.results} == {"pass"}
    edit = report["edited logits equal eager attention"]
    if dtype == torch.bfloat16:  # float16 rounds more finely: on some CPUs no choice changes
        assert any("choices of experts differ" in result.measured for result in report.results)
    effect = float(edit.measured.split("reference ")[1].split(",")[0])
    assert edit.difference < edit.bound < effect / 3


def test_without_the_same_experts_nothing_would_be_checked(monkeypatch):
    """Changed choices that are not matched: far larger differences, and a bound that is too wide.

    The differences are rounding, so their ratio depends on the machine: 2.8 to 3.2 times have been measured.
    """
    name = "edited logits equal eager attention"
    monkeypatch.setattr(running, "CHECKS", [check for check in running.CHECKS if check.name == name])
    matched = mi.check(mixture())[name]
    for module in (eager, context):
        monkeypatch.setattr(module, "agreeing", lambda structure, routing, real, run: (run(), Flips()))
    unmatched = mi.check(mixture())[name]
    assert unmatched.difference > 2 * matched.difference
    assert unmatched.bound > 2 * matched.bound


def test_in_float32_no_choice_changes():
    report = mi.check(mixture(torch.float32))
    assert report.ok, str(report)
    assert "experts" not in report["attention rows equal eager attention"].measured
    assert max(result.difference / max(result.bound, 1e-9) for result in report.results) < 0.3


def twice_the_scaling(patched):
    faults.wrong_scaling(patched, 2.0)


FAULTS = {
    twice_the_scaling: {"attention rows equal eager attention", "trace equals eager attention"},
    faults.mask_off_by_one: {"attention rows equal eager attention", "trace equals eager attention"},
    faults.masses_to_the_wrong_group: {"trace equals eager attention"},
    faults.dropped_edit: {"edited logits equal eager attention", "cached decoding equals one pass"},
    faults.half_an_edit: {"edited logits equal eager attention", "cached decoding equals one pass"},
    faults.decode_phase_lost: {"cached decoding equals one pass"},
}


@pytest.mark.parametrize("broken", FAULTS, ids=lambda f: f.__name__)
def test_faults_are_found_in_bfloat16(monkeypatch, broken):
    expected = FAULTS[broken]
    monkeypatch.setattr(running, "CHECKS", [check for check in running.CHECKS if check.name in expected])
    lalm = mixture()
    broken(monkeypatch)
    failed = mi.check(lalm).failed
    assert {result.name for result in failed} == expected
    assert all(result.remedy.startswith(ROUNDING) for result in failed)


def test_choices_that_cannot_be_read_are_neither_pass_nor_fail(monkeypatch):
    monkeypatch.setattr(experts, "_choice_among", lambda arguments: None)
    report = mi.check(mixture())
    assert [result.name for result in report.results] == NAMES
    undecided = [result for result in report.results if result.verdict == "not comparable"]
    assert undecided
    assert not report.ok
    assert not report.failed
    for result in undecided:
        assert result.difference > result.bound
        assert result.remedy == UNSURE
    text = " ".join(str(report).split())
    assert f"0 failed, {len(undecided)} not comparable" in text
    assert f"{undecided[0].name}: NOT COMPARABLE" in text
    assert mi.check(mixture(torch.float32)).ok  # no choice changes, so none has to be read
