"""A LoRA adapter on a tiny Qwen2-Audio: traced, edited, generated, swept, and loaded from its folder."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2AudioForConditionalGeneration

import mata_interp as mi
from mata_interp import Mata
from mata_interp.errors import ModelError
from mata_interp.lalm import LALM
from mata_interp.lalm.discovery.output_head import output_head, token_directions
from tests import reference
from tests.tiny import tiny_qwen2_audio

peft = pytest.importorskip("peft", reason="adapters need PEFT, of the dev extra")

MATA = Mata(1.5, [1, 2], "add")


def adapted(attention: str | None = None):
    """The tiny model with an adapter that changes what it says: fresh ones are zero."""
    model, processor = tiny_qwen2_audio(seed=0, attention=attention)
    settings = peft.LoraConfig(
        r=2, target_modules=r".*language_model.*\.(q_proj|k_proj|o_proj)", init_lora_weights=False
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return peft.get_peft_model(model, settings).eval(), processor


@pytest.fixture(scope="module")
def lora() -> LALM:
    return LALM(*adapted())


def test_the_adapter_is_in_what_is_read_and_edited(lora, tiny_lalm, items):
    prompt = lora.prompt(items)
    plain, edited = lora.logits(prompt), lora.logits(prompt, MATA)
    assert dict(lora.structure.heads) == dict(tiny_lalm.structure.heads)
    assert (plain - tiny_lalm.logits(prompt)).abs().max() > 0.1, "an adapter that does nothing shows nothing"
    eager = adapted("eager")[0].base_model.model
    masses = mi.trace(lora, prompt, progress=False)["mass"]
    for row in range(prompt.size):
        alone = reference.single(prompt.inputs, row)
        keys = prompt.groups["audio"][row][prompt.inputs["attention_mask"][row].bool()]
        edit = reference.Edit(MATA.alpha, MATA.layers, MATA.rule, keys)
        for measured, edits in ((plain, ()), (edited, [edit])):
            torch.testing.assert_close(
                measured[row], reference.forward(eager, alone, edits)[-1], atol=1e-4, rtol=0
            )
        for layer, weights in enumerate(reference.last_row(eager, alone)):
            measured = masses.sel(layer=layer, group="audio")[row].values
            torch.testing.assert_close(torch.tensor(measured), weights[0][:, keys].sum(-1), atol=1e-5, rtol=0)
    assert (edited - plain).abs().amax(1).min() > 0.1
    assert torch.equal(lora.logits(prompt, Mata(0.0, [1, 2])), plain)


def test_it_generates_and_is_swept(lora, items):
    prompt = lora.prompt(items)
    output = lora.generate(prompt, MATA, max_new_tokens=4)
    assert output.shape == (3, 4)
    result = mi.sweep(lora, prompt, {"none": None, "mata": MATA}, progress=False)
    assert result.attrs["looped"] == 0
    looped = torch.stack([lora.logits(prompt, x) for x in (None, MATA)], 1)
    torch.testing.assert_close(torch.tensor(result.values), looped, atol=2e-5, rtol=0)
    assert torch.equal(output[:, 0], looped[:, 1].argmax(-1))


def test_an_adapters_folder_loads_with_the_model_it_names(lora, items, tmp_path):
    model, processor = adapted()
    base = tmp_path / "base"
    tiny_qwen2_audio(seed=0)[0].save_pretrained(base)
    processor.save_pretrained(base)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(tmp_path / "adapter")
    again = LALM.from_pretrained(tmp_path / "adapter")
    prompt = lora.prompt(items)
    assert torch.equal(again.logits(again.prompt(items), MATA), lora.logits(prompt, MATA))
    assert again.name == str(tmp_path / "adapter")
    assert again.fingerprint()["weights_sha256"] != LALM.from_pretrained(base).fingerprint()["weights_sha256"]


def test_adapters_in_front_of_the_prompt_are_refused(tmp_path):
    tiny_qwen2_audio(seed=0)[0].save_pretrained(tmp_path / "base")
    settings = peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=2, base_model_name_or_path=str(tmp_path / "base")
    )
    settings.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="PROMPT_TUNING adapter"):
        LALM.from_pretrained(tmp_path / "adapter")
    model = peft.get_peft_model(tiny_qwen2_audio(seed=0)[0], settings)
    with pytest.raises(ModelError, match="puts vectors in front of prompts"):
        LALM(model)


@pytest.mark.parametrize("base", ["the folder itself", "somebody/a-text-model"])
def test_a_folder_with_model_and_adapter_is_loaded_as_transformers_loads_it(items, tmp_path, base):
    model, processor = adapted()
    tiny_qwen2_audio(seed=0)[0].save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model.peft_config["default"].base_model_name_or_path = str(tmp_path) if "itself" in base else base
    model.save_pretrained(tmp_path)
    whole = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path).eval()
    lalm = LALM.from_pretrained(tmp_path)
    assert lalm.fingerprint()["adapters"] is not None
    prompt = lalm.prompt(items)
    with torch.no_grad():
        expected = whole(**prompt.inputs).logits[:, -1]
    assert torch.equal(lalm.logits(prompt), expected)


@pytest.mark.parametrize("with_model", [True, False])
def test_an_adapter_without_peft_is_refused_not_left_out(tmp_path, monkeypatch, with_model):
    model, _ = adapted()
    model.save_pretrained(tmp_path)
    if with_model:
        tiny_qwen2_audio(seed=0)[0].save_pretrained(tmp_path)
    monkeypatch.setattr("mata_interp.lalm.loading.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="PEFT"):
        LALM.from_pretrained(tmp_path)


def test_an_adapted_output_head_is_read_with_its_adapter(items):
    model, processor = tiny_qwen2_audio(seed=0)
    settings = peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        lalm = LALM(peft.get_peft_model(model, settings).eval(), processor)
    head = output_head(lalm.model)
    states = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    rows = token_directions(head, [3, 4], states)
    with torch.no_grad():
        torch.testing.assert_close(states @ rows.T, head(states)[..., [3, 4]], atol=1e-4, rtol=0)
    assert (rows - head.base_layer.weight[[3, 4]]).abs().max() > 1e-3
    answered = [
        mi.Item(audio=i.audio, question=i.question, choices=i.choices, answer=i.choices[0]) for i in items
    ]
    result = mi.fusion_layers(lalm, answered[:1], criteria=["attribution", "lens_last"], progress=False)
    assert set(result.profiles["criterion"].values) == {"attribution", "lens_last"}
