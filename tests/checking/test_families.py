"""mi.check passes on every family of models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import mata_interp as mi
from mata_interp.checking.eager import EagerReference
from mata_interp.lalm import LALM, Prompt
from mata_interp.lalm.discovery.experts import routed
from tests.families.registry import FAMILIES

NO_ADAPTER = {"qwen2_5_omni", "qwen3_omni_moe", "phi4_multimodal"}
"""Neither they nor their decoders have an adapter in transformer-lens."""


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_family_passes(family):
    lalm = LALM(family.model(None))
    report = mi.check(lalm, lalm.prompt_from_inputs(family.inputs(2)))
    assert report.ok, str(report)
    skipped = {result.name for result in report.results if result.verdict == "not applicable"}
    of_items = {"option scores equal one pass", "audio reaches the model to its end"}
    assert skipped - {"transformer-lens agrees"} == of_items
    if family.states or family.name == "gemma3n":  # adapters that fail, or need timm
        assert report["transformer-lens agrees"].verdict in ("pass", "not applicable")
    elif family.name in NO_ADAPTER:
        assert "no adapter" in report["transformer-lens agrees"].measured
    else:
        assert report["transformer-lens agrees"].verdict == "pass"
    assert report["edited logits equal eager attention"].difference < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["gemma4", "granite_speech", "voxtral", "qwen3_omni_moe"])
def test_half_precision(name, dtype):
    """Sliding layers, other scaling, small logits, experts.

    Whether rounding changes a choice of experts depends on the machine. The report mentions experts if and
    only if it does so here.
    """
    lalm = LALM(FAMILIES[name].model(None).to(dtype))
    prompt = lalm.prompt_from_inputs(FAMILIES[name].inputs(2))
    report = mi.check(lalm, prompt)
    assert report.ok, str(report)
    mentioned = {result.name for result in report.results if "choices of experts differ" in result.measured}
    in_trace = choices_differ(lalm, prompt, lambda: mi.trace(lalm, prompt, "last", progress=False))
    assert ("trace equals eager attention" in mentioned) == in_trace
    if choices_differ(lalm, prompt, lambda: lalm.logits(prompt)):
        assert "edited logits equal eager attention" in mentioned
    if name != "qwen3_omni_moe":
        assert not mentioned


def choices_differ(lalm: LALM, prompt: Prompt, run: Callable[[], object]) -> bool:
    """Whether a run and eager attention choose other experts for a real token, where both choose."""
    eager = EagerReference(lalm)
    with routed(lalm.structure) as chosen:
        run()
    with routed(eager.structure) as reference, torch.no_grad():
        eager.model(**prompt.inputs, use_cache=False)
    real = prompt.inputs["attention_mask"].bool()
    assert set(chosen.experts) <= set(reference.experts)
    return any(
        bool((chosen.experts[i].sort(-1).values != reference.experts[i].sort(-1).values).any(-1)[real].any())
        for i in chosen.experts
    )


def test_a_family_that_draws_random_numbers_by_default():
    family = FAMILIES["vibevoice_asr"]
    lalm = LALM(family.model(None))
    inputs = {name: value for name, value in family.inputs(2).items() if name != "sample"}
    report = mi.check(lalm, lalm.prompt_from_inputs(inputs))
    assert report["two runs give equal logits"].difference == 0  # prompts switch it off
    assert report.ok, str(report)
