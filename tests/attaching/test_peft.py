"""An adapter around a model: what is attached reaches the model inside."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model

import mata_interp as mi
from mata_interp.lalm import LALM
from tests.tiny import tiny_qwen2_audio

MATA = mi.Mata(1.5, [1, 2], "add")


def test_a_model_with_an_adapter(items):
    model, processor = tiny_qwen2_audio(seed=0)
    torch.manual_seed(0)
    config = LoraConfig(target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)
    adapted = get_peft_model(model, config).eval()
    lalm = LALM(adapted, processor)
    prompt = lalm.prompt(items)
    expected = lalm.generate(prompt, MATA, max_new_tokens=6)
    assert not torch.equal(expected, lalm.generate(prompt, max_new_tokens=6))
    with mi.attach(adapted, MATA):
        tokens = adapted.generate(**prompt.inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(tokens[:, prompt.width :], expected)
