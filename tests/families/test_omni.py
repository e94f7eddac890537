"""Whole Omni checkpoints, which also speak: the part that takes audio is loaded and traced."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration

from mata_interp import Mata
from mata_interp.lalm import LALM

from . import whispers
from .registry import FAMILIES

MATA = Mata(1.5, [0, 1], "add")


@pytest.fixture(scope="module")
def whole():
    """A wrapper around the tiny thinker, without the parts that speak."""
    thinker = whispers.qwen2_5_omni(None)
    config = Qwen2_5OmniConfig(thinker_config=thinker.config.to_dict(), enable_audio_output=False)
    model = Qwen2_5OmniForConditionalGeneration(config).eval()
    model.thinker.load_state_dict(thinker.state_dict())
    return model, thinker


def test_the_thinker_is_used(whole):
    model, thinker = whole
    lalm, plain = LALM(model), LALM(thinker)
    assert lalm.model is model.thinker
    inputs = FAMILIES["qwen2_5_omni"].inputs(2)
    prompts = [one.prompt_from_inputs(inputs) for one in (lalm, plain)]
    assert torch.equal(lalm.logits(prompts[0], MATA), plain.logits(prompts[1], MATA))


def test_only_the_thinker_of_a_checkpoint_is_loaded(whole, tmp_path):
    model, thinker = whole
    model.save_pretrained(tmp_path)
    lalm = LALM.from_pretrained(tmp_path)
    assert type(lalm.model) is type(thinker)
    prompt = lalm.prompt_from_inputs(FAMILIES["qwen2_5_omni"].inputs(2))
    assert torch.equal(lalm.logits(prompt, MATA), LALM(thinker).logits(prompt, MATA))
