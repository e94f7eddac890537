"""mi.check finds nothing wrong in any family."""

from __future__ import annotations

import pytest
import torch

import mata_interp as mi
from mata_interp.lalm import LALM
from tests.families.registry import FAMILIES

LENS = {"qwen2_5_omni", "qwen3_omni_moe", "phi4_multimodal"}
"""Neither they nor their decoders have an adapter."""


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_family_passes(family):
    lalm = LALM(family.model(None))
    report = mi.check(lalm, lalm.prompt_from_inputs(family.inputs(2)))
    assert report.ok, report
    skipped = {line.name for line in report.lines if line.verdict == "not applicable"}
    loops = {"a sweep equals the loop"} if family.loops else set()
    assert skipped - {"transformer-lens agrees"} == {"options scored as one pass"} | loops
    if family.loops or family.name == "gemma3n":  # adapters that stumble, or need timm
        assert report["transformer-lens agrees"].verdict in ("pass", "not applicable")
    elif family.name in LENS:
        assert "no adapter" in report["transformer-lens agrees"].measured
    else:
        assert report["transformer-lens agrees"].verdict == "pass"
    assert report["edit reaches the logits"].off < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["gemma4", "granite_speech", "voxtral", "qwen3_omni_moe"])
def test_half_precision(name, dtype):
    """Sliding layers, other scaling, small logits, experts."""
    lalm = LALM(FAMILIES[name].model(None).to(dtype))
    report = mi.check(lalm, lalm.prompt_from_inputs(FAMILIES[name].inputs(2)))
    assert report.ok, report
    told = report["trace equals eager attention"].measured
    assert ("experts" in told) == ((name, dtype) == ("qwen3_omni_moe", torch.bfloat16))


def test_a_family_that_draws_at_random_by_default():
    family = FAMILIES["vibevoice_asr"]
    lalm = LALM(family.model(None))
    inputs = {name: value for name, value in family.inputs(2).items() if name != "sample"}
    report = mi.check(lalm, lalm.prompt_from_inputs(inputs))
    assert report["same twice"].off == 0  # a prompt asks it not to
    assert report.ok, report
