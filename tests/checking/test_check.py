"""mi.check passes on correct models, survives checks that raise, and finds what is left behind."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AttentionInterface

import mata_interp as mi
from mata_interp.checking import CheckReport, running
from mata_interp.checking.context import STRENGTHS, CheckContext, default_items
from mata_interp.checking.registry import WEAK, Check
from mata_interp.checking.results import CheckResult, Measurement, NotApplicable
from mata_interp.errors import ExclusionWarning, ItemError, ModelError, RunError
from mata_interp.lalm import LALM, scoring
from mata_interp.lalm.discovery.experts import Flips
from mata_interp.lalm.rows import caches
from tests.tiny import RATE, tiny_qwen2_audio

from .small import failed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_correct_model_passes(dtype):
    model, processor = tiny_qwen2_audio(seed=0)
    report = mi.check(LALM(model.to(dtype), processor))
    assert report.ok, str(report)
    assert {result.verdict for result in report.results} == {"pass"}
    effect = report["edited logits equal eager attention"]
    assert effect.difference < effect.bound < 1
    # sums are computed in float32 in every model
    assert report["attention rows sum to 1"].difference < 1e-6
    if dtype == torch.float32:
        assert max(result.difference / max(result.bound, 1e-9) for result in report.results) < 0.3


@pytest.mark.parametrize("name", ["organism", "organism-unbiased"])
def test_shipped_models_pass(name):
    report = mi.check(LALM.from_pretrained(name))
    assert report.ok, str(report)
    assert all(result.verdict == "pass" for result in report.results)


def test_ready_made_inputs(lalm):
    """Without a processor, options cannot be scored and rows cannot be separated; the rest is checked."""
    bare = LALM(lalm.model)
    with pytest.raises(ModelError, match=bare.name):
        mi.check(bare)
    inputs = lalm.prompt(default_items(lalm)).inputs
    report = mi.check(bare, bare.prompt_from_inputs(inputs))
    assert report.ok, str(report)
    skipped = [result.name for result in report.results if result.verdict == "not applicable"]
    assert set(skipped) == {"option scores equal one pass", "audio reaches the model to its end"}
    assert "7 tokens" in report["batch equals single prompts"].measured


def test_one_prompt(lalm):
    item = mi.Item(
        audio=(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32), RATE), question="?"
    )
    report = mi.check(lalm, lalm.prompt(item))
    assert report.ok, str(report)


def test_items_that_cannot_be_used_are_left_out_and_named(lalm):
    good, other = default_items(lalm)
    silent = mi.Item(audio=None, question="What?", choices=("a", "b"), id="silent")
    with pytest.warns(ExclusionWarning, match="silent"):
        report = mi.check(lalm, [good, silent, other])
    assert report.ok, str(report)
    (left,) = report.excluded
    assert left.startswith("silent: audio: ")
    assert left.split(": ")[0] in str(report)
    assert report.about["prompt"].startswith("2 x ")
    with pytest.raises(ItemError, match="silent"):
        mi.check(lalm, [good, silent], strict=True)
    with pytest.raises(RunError, match="silent"):
        mi.check(lalm, silent)


def check_of(measure, name: str = "one", compared: str = "", remedy: str = "") -> Check:
    return Check(name=name, compared=compared, remedy=remedy, measure=measure)


def run_only(lalm, monkeypatch, *checks: Check) -> CheckReport:
    """A report of these checks alone, and of whether the model is unchanged."""
    monkeypatch.setattr(running, "CHECKS", checks)
    return mi.check(lalm)


def add_hook(lalm):
    lalm.structure.decoder.layers[1].register_forward_hook(lambda *_: None)


def change_weight(lalm):
    lalm.model.lm_head.weight.data.mul_(1.001)


def change_attention(lalm):
    lalm.model.set_attn_implementation("eager")


def replace_forward(lalm):
    layer = lalm.structure.decoder.layers[1]
    vars(layer)["forward"] = layer.forward


def register_attention(lalm):
    AttentionInterface.register("left_behind", lambda *_: None)


LEFT_BEHIND = {
    add_hook: "hooks",
    change_weight: "weights",
    change_attention: "attention",
    replace_forward: "module attributes",
    register_attention: "attention functions",
}


@pytest.mark.parametrize("change", LEFT_BEHIND, ids=lambda change: change.__name__)
def test_an_instrument_that_leaves_something_behind(lalm, monkeypatch, change):
    monkeypatch.setattr(AttentionInterface, "_global_mapping", dict(AttentionInterface._global_mapping))

    def measure(context):
        change(context.lalm)
        return Measurement("done", 0.0, 0.0)

    report = run_only(lalm, monkeypatch, check_of(measure))
    assert [result.name for result in report.failed] == ["model is unchanged after the checks"]
    changed = report["model is unchanged after the checks"].measured.partition("changed: ")[2]
    assert LEFT_BEHIND[change] in changed.split(", ")


def raising(error: Exception):
    def measure(context):
        raise error

    return measure


ERRORS = [KeyError("a name of\n a new model"), torch.OutOfMemoryError("CUDA out of memory"), AssertionError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_is_an_error_of_the_check_alone(lalm, monkeypatch, error):
    """It is not reported as a fault of the model."""
    bad = check_of(raising(error), "bad", "x and y", "attention is read wrongly")
    good = check_of(lambda context: Measurement("fine", 0.5, 1.0), "good")
    report = run_only(lalm, monkeypatch, bad, good)
    assert [result.verdict for result in report.results] == ["error", "pass", "pass"]
    result = report["bad"]
    assert type(error).__name__ in result.measured
    assert "\n" not in result.measured
    assert (result.difference, result.bound) == (None, None)
    assert "attention is read wrongly" not in f"{result.measured} {result.remedy}"
    assert "attention is read wrongly" not in str(report)
    assert not report.ok
    assert report.failed == (result,)
    assert "1 could not be measured" in str(report)


def test_verdicts_of_measurements(lalm, monkeypatch):
    def inapplicable(context):
        raise NotApplicable("there is no z")

    report = run_only(
        lalm,
        monkeypatch,
        check_of(lambda context: Measurement("fine", 0.5, 1.0), "good"),
        check_of(lambda context: Measurement("odd", float("nan"), 1.0), "nan", "x and y", "do this"),
        check_of(lambda context: Measurement("flawed", 0.0, 1.0, flaw="z is wrong"), "flaw"),
        check_of(lambda context: Measurement("far", 2.0, 1.0, unsure="it may round"), "unsure"),
        check_of(inapplicable, "none"),
    )
    verdicts = ["pass", "fail", "fail", "not comparable", "not applicable", "pass"]
    assert [result.verdict for result in report.results] == verdicts
    assert report["nan"].remedy == "do this"
    assert "z is wrong" in report["flaw"].measured
    assert "it may round" in report["unsure"].measured
    text = " ".join(str(report).split())
    assert "nan: FAILED (x and y). do this" in text
    assert "2 of 6 checks passed, 2 failed, 1 not comparable, 1 not applicable" in text
    assert "2 of 6 checks passed" in repr(report)
    assert len(repr(report)) < 150
    assert report.to_dict()["results"][1]["name"] == "nan"
    with pytest.raises(KeyError, match="'other'"):
        report["other"]


def test_flips_belong_to_the_check_that_measured_them(lalm, monkeypatch):
    """No check sees those of another."""
    first = check_of(lambda context: Measurement("a", 0.0, 1.0, flips=Flips(3, 7)), "first")
    second = check_of(lambda context: Measurement("b", 0.0, 1.0), "second")
    report = run_only(lalm, monkeypatch, first, second)
    assert "3 of 7" in report["first"].measured
    assert report["second"].measured == "b"


def test_a_device_whose_kernels_sum_in_any_order_need_not_be_exact(lalm, monkeypatch):
    """On a CPU the bound is 0. Elsewhere it is 0 only if plain forward passes repeat each other."""
    context = CheckContext(lalm, None)
    assert context.exact(1e-3) == (0.0, "")
    assert context.plain is not None
    monkeypatch.setattr(type(lalm), "device", property(lambda self: torch.device("meta")))
    for changes, bound, measured in (
        ([0.0] * 8, 0.0, "equal"),
        ([0, 0, 0.5, 0] * 2, context.logit_bound, "0.5"),
    ):
        elsewhere, passes = CheckContext.__new__(CheckContext), iter(changes)
        vars(elsewhere).update(vars(context))
        monkeypatch.setattr(lalm, "logits", lambda prompt, passes=passes: context.plain + next(passes))
        assert elsewhere.exact(0.0) == (0.0, "")
        outcome, note = elsewhere.exact(1e-6)
        assert outcome == bound
        assert measured in note


def test_too_weak_an_effect_is_no_pass(lalm):
    """A model that does not read its audio: agreement on a change of nothing is no agreement."""
    for module in lalm.structure.attention.values():
        module.o_proj.weight.data.zero_()
    assert failed(lalm) == {"edited logits equal eager attention", "cached decoding equals one pass"}
    result = mi.check(lalm)["edited logits equal eager attention"]
    assert result.difference <= result.bound
    assert result.remedy == WEAK


def test_the_random_state_is_left_alone(lalm):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    mi.check(lalm)
    assert torch.equal(torch.get_rng_state(), before)
    assert caches.branch_cache is scoring.branch_cache


def test_the_weakest_strength_that_tells_is_used(lalm):
    context = CheckContext(lalm, None)
    assert context.strength == STRENGTHS[0]
    for strength in (3.0, -4.0, 6.0):
        plain = torch.zeros(2, 5)
        tried = []

        def logits(alpha, routing=None, tried=tried, plain=plain, strength=strength):
            tried.append(alpha)
            return plain + 1.0 * (alpha == strength), Flips()

        fake = CheckContext(lalm, context.prompt)
        vars(fake).update(eager_logits=logits, logit_bound=0.2)
        assert fake.strength == strength
        assert tried == [0.0, *STRENGTHS[: STRENGTHS.index(strength) + 1]]


def test_strengths_grow_slowly():
    sizes = [abs(alpha) for alpha in STRENGTHS]
    assert sizes == sorted(sizes)
    assert all(later <= 2 * earlier for earlier, later in pairwise(sizes))
    assert all(later - earlier <= 2 for earlier, later in pairwise(sizes))


def test_bounds_are_printed_as_they_are():
    result = CheckResult("name", "compared", "max |Δlogit| 1.56", 1.5625, 1.5, "fail", "remedy")
    line = next(line for line in str(CheckReport("m", {}, (result,))).splitlines() if "1.56" in line)
    assert line.split()[-1] == "1.5"
