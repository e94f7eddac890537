"""Granite Speech switches its adapter on with audio and off without, in its own ``generate`` alone.

Here the adapter follows the prompt in every pass, whatever ran before, and is put back afterwards. The
reference is the plain model with the adapter switched by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GraniteSpeechConfig, GraniteSpeechForConditionalGeneration

import mata_interp as mi
from mata_interp import Mata
from mata_interp.lalm import LALM, Prompt

peft = pytest.importorskip("peft", reason="adapters need PEFT, of the dev extra")

AUDIO, MELS, FRAMES = 258, 160, 30
MATA = Mata(1.5, [1, 2], "add")


def granite() -> Any:
    config = GraniteSpeechConfig(
        text_config={
            "model_type": "granite",
            "vocab_size": 320,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "pad_token_id": 256,
        },
        encoder_config={
            "input_dim": MELS,
            "num_layers": 2,
            "hidden_dim": 16,
            "feedforward_mult": 2,
            "num_heads": 2,
            "output_dim": 8,
            "context_size": 20,
            "max_pos_emb": 32,
            "conv_kernel_size": 3,
        },
        projector_config={
            "model_type": "blip_2_qformer",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "encoder_hidden_size": 16,
            "cross_attention_frequency": 1,
        },
        audio_token_index=AUDIO,
        has_lora_adapter=True,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GraniteSpeechForConditionalGeneration(config)
        model.add_adapter(
            peft.LoraConfig(
                r=4,
                lora_alpha=64,
                target_modules=r".*language_model.*\.(q_proj|v_proj)",
                init_lora_weights=False,
            )
        )
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 256
    return model.eval()


@pytest.fixture(scope="module")
def lalm() -> LALM:
    return LALM(granite())


@pytest.fixture(scope="module")
def prompt_with_audio(lalm) -> Prompt:
    features = torch.randn(1, FRAMES, MELS, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        places = lalm.model.get_audio_features(features).pooler_output.shape[-2]
    ids = torch.tensor([[65, 66, *[AUDIO] * places, 67, 68]])
    return lalm.prompt_from_inputs(
        {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "input_features": features,
            "input_features_mask": torch.ones(1, places, dtype=torch.bool),
        }
    )


@pytest.fixture(scope="module")
def prompt_without_audio(lalm) -> Prompt:
    ids = torch.tensor([[65, 66, 67, 68, 69]])
    return lalm.prompt_from_inputs({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def state(lalm: LALM) -> list[Any]:
    layers = [m for m in lalm.model.modules() if hasattr(m, "merged_adapters")]
    return [(m.disable_adapters, [p.requires_grad for p in m.parameters()]) for m in layers]


def by_hand(lalm: LALM, prompt: Prompt, adapter: bool) -> torch.Tensor:
    """The plain forward with the adapter on or off; the state of the adapter is put back."""
    layers = [m for m in lalm.model.modules() if hasattr(m, "merged_adapters")]
    before = [m._disable_adapters for m in layers]
    try:
        for layer in layers:
            layer._disable_adapters = not adapter
        with torch.no_grad():
            return lalm.model(**prompt.inputs).logits[:, -1]
    finally:
        for layer, disabled in zip(layers, before, strict=True):
            layer._disable_adapters = disabled


def answers(lalm: LALM, prompt: Prompt) -> dict[str, np.ndarray]:
    edit = MATA if prompt.groups["audio"].any() else None
    result = {
        "logits": lalm.logits(prompt, edit).numpy(),
        "plain": lalm.logits(prompt).numpy(),
        "generate": lalm.generate(prompt, edit, max_new_tokens=4).numpy(),
        "trace": mi.trace(lalm, prompt, progress=False)["mass"].values,
        "sweep": mi.sweep(lalm, prompt, {"none": None, "edit": edit}, progress=False).values,
        "texts": mi.sweep_generate(
            lalm,
            prompt,
            {"none": None, "edit": edit},
            decoding=mi.Decoding(max_new_tokens=4),
            progress=False,
        )["tokens"].values,
    }
    if prompt.groups["audio"].any():
        result["fusion"] = mi.fusion_layers(
            lalm, [prompt], target=[(3, 4)], criteria=["knockout_last", "lens_last"], progress=False
        ).profiles.values
    return result


@pytest.mark.parametrize("left", ["on", "off"])
def test_the_adapter_follows_the_prompt_whatever_ran_before(
    lalm, prompt_with_audio, prompt_without_audio, left
):
    if left == "off":
        lalm.model.disable_adapters()
    before = state(lalm)
    try:
        with_audio, without = answers(lalm, prompt_with_audio), answers(lalm, prompt_without_audio)
        for first in (prompt_without_audio, prompt_with_audio):
            for prompt, expected in ((prompt_with_audio, with_audio), (prompt_without_audio, without)):
                lalm.generate(first, max_new_tokens=1)
                for name, values in answers(lalm, prompt).items():
                    np.testing.assert_array_equal(values, expected[name], err_msg=name)
        for prompt, expected, adapter in (
            (prompt_with_audio, with_audio, True),
            (prompt_without_audio, without, False),
        ):
            plain = by_hand(lalm, prompt, adapter)
            assert torch.equal(plain, torch.from_numpy(expected["plain"]))
            assert (plain - by_hand(lalm, prompt, not adapter)).abs().max() > 1e-2
            # the answer begins with the token that the forward predicts, from a shared cache, too
            np.testing.assert_allclose(expected["sweep"][:, 0], plain, atol=2e-5)
            assert expected["texts"][0, 0, 0] == int(plain.argmax())
        assert state(lalm) == before
    finally:
        lalm.model.enable_adapters()


def test_answers_are_those_of_the_models_own_generate(prompt_with_audio, prompt_without_audio):
    for name in ("with", "without"):
        lalm, model = LALM(granite()), granite()
        prompt = {"with": prompt_with_audio, "without": prompt_without_audio}[name]
        with torch.no_grad():
            expected = model.generate(**prompt.inputs, max_new_tokens=4, do_sample=False)
        assert torch.equal(lalm.generate(prompt, max_new_tokens=4), expected[:, prompt.width :])


def test_the_check_passes_with_the_adapter_left_off(lalm, prompt_with_audio):
    lalm.model.disable_adapters()
    try:
        assert mi.check(lalm, prompt_with_audio).ok
    finally:
        lalm.model.enable_adapters()
