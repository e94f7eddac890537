"""mi.check on right models finds nothing; a check that raises fails alone; what is left behind is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mata_interp as mi
from mata_interp.checking import results, running
from mata_interp.checking.context import own_items
from mata_interp.errors import ModelError
from mata_interp.lalm import LALM, scoring
from mata_interp.lalm.rows import caches
from tests.tiny import RATE, tiny_qwen2_audio

from .small import failed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_right_model_passes(dtype):
    model, processor = tiny_qwen2_audio(seed=0)
    report = mi.check(LALM(model.to(dtype), processor))
    assert report.ok, report
    assert {line.verdict for line in report.lines} == {"pass"}
    effect = report["edit reaches the logits"]
    assert effect.off < effect.bound < 1
    # what is computed in float32 is no less exact in half precision
    assert report["rows sum to 1"].off < 1e-6
    if dtype == torch.float32:
        assert max(line.off / max(line.bound, 1e-9) for line in report.lines) < 0.3


@pytest.mark.parametrize("name", ["organism", "organism-unbiased"])
def test_what_ships_passes(name):
    report = mi.check(LALM.from_pretrained(name))
    assert report.ok, report
    assert all(line.verdict == "pass" for line in report.lines)


def test_ready_made_inputs(lalm):
    """Without a processor options cannot be scored nor rows taken apart; the rest is checked as ever."""
    bare = LALM(lalm.model)
    with pytest.raises(
        ModelError, match=r"no processor to make a prompt with: give one, mi.check\(lalm, lalm.pr"
    ):
        mi.check(bare)
    inputs = lalm.prompt(own_items(lalm)).inputs
    report = mi.check(bare, bare.prompt_from_inputs(inputs))
    assert report.ok, report
    skipped = {line.name: line.measured for line in report.lines if line.verdict == "not applicable"}
    assert skipped == {"options scored as one pass": "the prompt was not made of items with options."}
    assert "7 tokens of padding" in report["alone as in a batch"].measured


def test_one_prompt(lalm):
    item = mi.Item(
        audio=(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32), RATE), question="?"
    )
    report = mi.check(lalm, lalm.prompt(item))
    assert report.ok, report


@pytest.mark.parametrize("what", ["hook", "weight", "attention"])
def test_an_instrument_that_leaves_something_behind(lalm, monkeypatch, what):
    def measure(subject):
        if what == "hook":
            subject.lalm.structure.decoder.layers[1].register_forward_hook(lambda *_: None)
        elif what == "weight":
            subject.lalm.model.lm_head.weight.data.mul_(1.001)
        else:
            subject.lalm.model.set_attn_implementation("eager")
        return results.Measurement("done", 0.0, 0.0)

    last = results.Check("careless", "", "", measure)
    report = run_only(lalm, monkeypatch, last)
    assert [line.name for line in report.failed] == ["the model is left as found"]
    named = {"hook": "hooks", "weight": "weights", "attention": "attention"}[what]
    assert named in report["the model is left as found"].measured


def run_only(lalm, monkeypatch, *checks):
    """A report of these checks alone, and of what is left behind."""
    monkeypatch.setattr(running, "in_order", lambda: list(checks))
    return mi.check(lalm)


def test_a_check_that_raises_fails_alone(lalm, monkeypatch):
    def broken(subject):
        raise KeyError("what a new\n model may do")

    good = results.Check("good", "a", "b", lambda subject: results.Measurement("fine", 0.5, 1.0))
    nan = results.Check("nan", "a", "do this", lambda subject: results.Measurement("odd", float("nan"), 1.0))
    report = run_only(lalm, monkeypatch, results.Check("bad", "x and y", "look there", broken), good, nan)
    assert [line.verdict for line in report.lines] == ["fail", "pass", "fail", "pass"]
    assert report["bad"].measured == "KeyError: 'what a new\\n model may do'"
    assert not report.ok
    text = str(report)
    assert "bad: FAILED (x and y). KeyError" in " ".join(text.split())
    assert "look there" in text
    assert "2 of 4 checks passed, 2 failed, 0 not applicable" in text
    with pytest.raises(KeyError, match="No check 'other'"):
        report["other"]


def test_too_weak_an_effect_tells_nothing(lalm):
    """A model that does not read its audio: agreement on a change of nothing is no agreement."""
    for module in lalm.structure.attention.values():
        module.o_proj.weight.data.zero_()
    assert failed(lalm) == {"edit reaches the logits", "prefill and decode as one pass"}
    line = mi.check(lalm)["edit reaches the logits"]
    assert "too little to tell from rounding" in line.measured
    assert line.remedy.startswith("This shows nothing either way: check with a prompt whose answer depends")


def test_it_draws_nothing_from_the_random_state_and_leaves_the_mode(lalm):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    mi.check(lalm)
    assert torch.equal(torch.get_rng_state(), before)
    assert caches.branch_cache is scoring.branch_cache
