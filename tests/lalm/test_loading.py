"""Loading from a folder as any transformers model, and one-line errors where there is nothing to load."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForMultimodalLM,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
)

from mata_interp.errors import ModelError
from mata_interp.interventions import Mata
from mata_interp.lalm import LALM
from mata_interp.lalm.loading import SHIPPED
from tests.lalm.test_structure import text_model


@pytest.fixture(scope="module")
def folder(tiny_lalm, tmp_path_factory):
    """The tiny model as the shipped one is kept: halved weights, a config that says float32."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    half = {name: tensor.half() for name, tensor in tiny_lalm.model.state_dict().items()}
    tiny_lalm.model.save_pretrained(path, state_dict=half)
    tiny_lalm.processor.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    return path


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_from_a_folder(folder, tiny_lalm, items, prompt):
    lalm = LALM.from_pretrained(folder)
    assert lalm.name == str(folder)
    assert lalm.dtype == torch.float32
    assert not lalm.model.training
    assert type(lalm.model) is type(tiny_lalm.model)
    inputs = lalm.prompt(items).inputs
    assert all(torch.equal(inputs[name], prompt.inputs[name]) for name in prompt.inputs)
    torch.testing.assert_close(lalm.logits(prompt), tiny_lalm.logits(prompt), atol=0.05, rtol=0)


def test_as_in_transformers(folder):
    assert LALM.from_pretrained(str(folder), dtype=torch.bfloat16).dtype == torch.bfloat16
    assert LALM.from_pretrained(str(folder), dtype="float16").dtype == torch.float16


def test_the_shipped_models_are_looked_for_in_the_package():
    assert {name: path.parts[-4:] for name, path in SHIPPED.items()} == {
        name: ("mata_interp", "organism", "weights", name) for name in ("organism", "organism-unbiased")
    }


def one_line(name, said, **options):
    with pytest.raises(ModelError, match=said) as caught:
        LALM.from_pretrained(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/models/none", "a/b/c"])
def test_no_such_folder(name):
    one_line(name, f"No model folder '{name}'")


@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model"])
def test_no_such_name(name):
    one_line(name, f"No config of a model '{name}'")


def test_an_empty_folder(tmp_path):
    one_line(tmp_path, "No config of a model")


def test_a_model_without_audio(tmp_path):
    text_model().save_pretrained(tmp_path)
    one_line(tmp_path, r"\(Qwen2ForCausalLM\) has no audio")


def test_an_architecture_that_transformers_lacks(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen9AudioForever"]}))
    one_line(tmp_path, "is a 'Qwen9AudioForever', which this transformers does not have")


def test_a_family_that_somebody_else_registered(tiny_lalm, prompt, tmp_path):
    """A config and a class of their own, known to transformers' Auto classes alone."""

    class StrangeConfig(Qwen2AudioConfig):
        model_type = "strange_listener"

    class StrangeListener(Qwen2AudioForConditionalGeneration):
        config_class = StrangeConfig

    settings = {**tiny_lalm.model.config.to_dict(), "model_type": "strange_listener"}
    model = StrangeListener(StrangeConfig(**settings))
    model.load_state_dict(tiny_lalm.model.state_dict())
    model.save_pretrained(tmp_path)
    tiny_lalm.processor.save_pretrained(tmp_path)
    with pytest.raises(ModelError):
        LALM.from_pretrained(tmp_path)
    AutoConfig.register("strange_listener", StrangeConfig)
    AutoModelForMultimodalLM.register(StrangeConfig, StrangeListener)
    lalm = LALM.from_pretrained(tmp_path)
    assert type(lalm.model) is StrangeListener
    assert torch.equal(lalm.logits(prompt), tiny_lalm.logits(prompt))


def test_no_weights_and_no_pickled_ones(folder, tmp_path, tiny_lalm):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    torch.save(tiny_lalm.model.state_dict(), tmp_path / "pytorch_model.bin")
    one_line(tmp_path, "No weights of a model")


def test_without_a_processor_there_is_a_model_all_the_same(tmp_path, tiny_lalm, items, prompt):
    tiny_lalm.model.save_pretrained(tmp_path)
    lalm = LALM.from_pretrained(tmp_path)
    ready = lalm.prompt_from_inputs(prompt.inputs)
    assert torch.equal(lalm.logits(ready), tiny_lalm.logits(ready))
    with pytest.raises(
        ModelError, match=r"has no processor: No processor of a model .*prompt_from_inputs"
    ) as told:
        lalm.prompt(items)
    assert "\n" not in str(told.value)


def test_a_tokenizer_alone_is_no_processor(tmp_path, tiny_lalm, items):
    tiny_lalm.model.save_pretrained(tmp_path)
    tiny_lalm.processor.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no processor"):
        LALM.from_pretrained(tmp_path).prompt(items)


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def test_a_chat_template_in_the_place_of_the_processors_own(folder, tmp_path, items):
    file = tmp_path / "mine.jinja"
    file.write_text(TEMPLATE)
    own = LALM.from_pretrained(folder).prompt(items)
    for given in (TEMPLATE, file, str(file)):
        prompt = LALM.from_pretrained(folder, chat_template=given).prompt(items)
        assert prompt.groups["audio"].sum() == own.groups["audio"].sum()
        assert torch.equal(prompt.groups["question"].sum(1), own.groups["question"].sum(1))
        assert prompt.width < own.width
    one_line(folder, "No chat template 'nowhere.jinja'", chat_template="nowhere.jinja")


def test_the_tokenizers_template_serves_where_the_processor_has_none(tmp_path, items, tiny_lalm):
    lost = copy.deepcopy(tiny_lalm.processor)
    lost.chat_template, lost.tokenizer.chat_template = None, TEMPLATE
    tiny_lalm.model.save_pretrained(tmp_path)
    lost.save_pretrained(tmp_path)
    assert LALM.from_pretrained(tmp_path).prompt(items).groups["audio"].sum() > 0


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map(folder, device_map, items):
    lalm, plain = LALM.from_pretrained(folder, device_map=device_map), LALM.from_pretrained(folder)
    mata = Mata(1.0, [1, 2])
    assert torch.equal(lalm.logits(lalm.prompt(items), mata), plain.logits(plain.prompt(items), mata))
    assert torch.equal(
        lalm.generate(lalm.prompt(items), mata, max_new_tokens=3),
        plain.generate(plain.prompt(items), mata, max_new_tokens=3),
    )


def test_a_package_that_is_missing_is_named(folder, monkeypatch):
    def needs(*args, **kwargs):
        raise ImportError("\nThisModel requires the timm library but it was not found. Do:\n`pip ...`")

    monkeypatch.setattr(Qwen2AudioForConditionalGeneration, "from_pretrained", needs)
    one_line(
        folder,
        r"No weights of .*requires the timm library.*pip install 'mata-interp\[families\]'.*"
        rf"same build as torch, here {re.escape(torch.__version__)}",
    )
