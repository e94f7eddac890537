"""Loading from a folder as any transformers model, and one-line errors where there is nothing to load."""

from __future__ import annotations

import copy
import json
import re
import warnings

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForMultimodalLM,
    AutoProcessor,
    BitsAndBytesConfig,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
)

from mata_interp.errors import ArgumentError, ModelError, SlowDeviceWarning
from mata_interp.interventions import Mata
from mata_interp.lalm import LALM, description, load_values
from mata_interp.lalm.loading import SHIPPED
from tests.families.registry import FAMILIES
from tests.lalm.test_structure import text_model
from tests.support.packages import without_bitsandbytes


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


@pytest.mark.parametrize(
    ("dtype", "loaded"),
    [
        (None, torch.float32),
        ("auto", torch.float32),
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        (torch.bfloat16, torch.bfloat16),
        ("torch.bfloat16", torch.bfloat16),
        ("fp16", torch.float16),
        ("float16", torch.float16),
    ],
)
def test_dtypes(folder, dtype, loaded):
    assert LALM.from_pretrained(str(folder), dtype=dtype).dtype == loaded


def test_the_shipped_models_are_looked_for_in_the_package():
    assert {name: path.parts[-4:] for name, path in SHIPPED.items()} == {
        name: ("mata_interp", "organism", "weights", name) for name in ("organism", "organism-unbiased")
    }


def one_line(name, output, **options):
    with pytest.raises(ModelError, match=output) as caught:
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
    ) as report:
        lalm.prompt(items)
    assert "\n" not in str(report.value)


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
    default = LALM.from_pretrained(folder).prompt(items)
    for template in (TEMPLATE, file, str(file)):
        prompt = LALM.from_pretrained(folder, chat_template=template).prompt(items)
        assert prompt.groups["audio"].sum() == default.groups["audio"].sum()
        assert torch.equal(prompt.groups["question"].sum(1), default.groups["question"].sum(1))
        assert prompt.width < default.width
    one_line(folder, "No chat template 'nowhere.jinja'", chat_template="nowhere.jinja")


def test_the_tokenizers_template_serves_where_the_processor_has_none(tmp_path, items, tiny_lalm):
    lost = copy.deepcopy(tiny_lalm.processor)
    lost.chat_template, lost.tokenizer.chat_template = None, TEMPLATE
    tiny_lalm.model.save_pretrained(tmp_path)
    lost.save_pretrained(tmp_path)
    assert LALM.from_pretrained(tmp_path).prompt(items).groups["audio"].sum() > 0


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine that says it has two CUDA devices, the second of which is the current one."""
    monkeypatch.setattr(load_values, "available_devices", lambda: ["cuda:0", "cuda:1", "cpu"])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


def test_the_accelerator_is_the_default(two_gpus, monkeypatch):
    assert load_values.device_to_use() == torch.device("cuda:1")
    monkeypatch.setattr(load_values, "available_devices", lambda: ["mps:0", "cpu"])
    assert load_values.device_to_use() == torch.device("mps:0")
    monkeypatch.setattr(load_values, "available_devices", lambda: ["xpu:0", "cpu"])
    assert load_values.device_to_use() == torch.device("cpu"), "other accelerators are used by name"
    assert load_values.device_to_use("xpu") == torch.device("xpu")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda", 1), "cpu", torch.device("cpu")])
def test_devices_that_are_there(device, two_gpus):
    assert load_values.device_to_use(device) == torch.device(device)


@pytest.mark.parametrize("device", ["cuda:2", "mps", "gpu", "meta", "disk", 2.5])
def test_devices_that_are_not(device, folder, two_gpus):
    with pytest.raises(ArgumentError, match="cuda:0, cuda:1, cpu") as caught:
        LALM.from_pretrained(folder, device=device)
    assert repr(str(device)) in str(caught.value)
    with pytest.raises(ArgumentError, match="cuda:0, cuda:1, cpu"):
        LALM.from_pretrained(folder, device_map={"": device} if device != "disk" else device)


def test_the_devices_of_this_machine_can_be_used(folder):
    names = load_values.available_devices()
    assert names[-1] == "cpu"
    for name in names:
        assert description.devices_of(LALM.from_pretrained(folder, device=name).model) == [name]


def test_weights_are_loaded_straight_to_their_device(folder, two_gpus, monkeypatch):
    """What reaches transformers; of a GPU the rest is transformers' own."""
    calls = []

    def from_pretrained(where, **settings):
        calls.append(settings)
        raise OSError("enough")

    monkeypatch.setattr(Qwen2AudioForConditionalGeneration, "from_pretrained", from_pretrained)
    for options in ({}, {"device": "cuda:0"}, {"device_map": "cuda:0"}, {"device_map": "auto"}):
        with pytest.raises(ModelError):
            LALM.from_pretrained(folder, **options)
    assert [settings["device_map"] for settings in calls] == [
        {"": torch.device("cuda:1")},
        {"": torch.device("cuda:0")},
        {"": torch.device("cuda:0")},
        "auto",
    ]


def test_a_device_and_a_device_map_contradict(folder):
    with pytest.raises(ArgumentError, match=r"device='cpu'.*device_map='auto'"):
        LALM.from_pretrained(folder, device="cpu", device_map="auto")


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"dtype": "int8"}, r"'int8'.*bf16, fp16, fp32, auto"),
        ({"dtype": "bf61"}, "Did you mean 'bf16'"),
        ({"dtype": torch.int32}, "int32"),
        ({"dtype": {"text_config": "bf61"}}, "'bf61'"),
        ({"device_map": "automatic"}, "Did you mean 'auto'"),
        ({"attn_implementation": "sdap"}, "Did you mean 'sdpa'"),
        ({"quantization_config": "2bit"}, "'2bit'.*4bit, 8bit"),
        ({"use_safetensors": False}, "use_safetensors"),
        ({"trust_remote_code": True}, "trust_remote_code"),
    ],
)
def test_values_that_do_not_exist(options, facts, folder, monkeypatch):
    monkeypatch.setattr(Qwen2AudioForConditionalGeneration, "from_pretrained", None)
    with pytest.raises(ArgumentError, match=facts):
        LALM.from_pretrained(folder, **options)


def test_a_mistyped_argument_is_named(folder):
    one_line(folder, "attention_implementation", attention_implementation="sdpa")


def test_keywords_go_to_transformers(folder, monkeypatch):
    settings_by_kind = {}
    for kind in (AutoConfig, AutoProcessor, Qwen2AudioForConditionalGeneration):
        load = kind.from_pretrained

        def noted(where, _load=load, _kind=kind, **settings):
            settings_by_kind[_kind] = settings
            return _load(where, **settings)

        monkeypatch.setattr(kind, "from_pretrained", noted)
    LALM.from_pretrained(folder, local_files_only=True, max_memory={"cpu": "1GiB"}, device_map="auto")
    assert len(settings_by_kind) == 3
    assert all(settings["local_files_only"] for settings in settings_by_kind.values())
    assert [kind for kind, settings in settings_by_kind.items() if "max_memory" in settings] == [
        Qwen2AudioForConditionalGeneration
    ]


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_attention_functions(name, folder, prompt):
    lalm = LALM.from_pretrained(folder, attn_implementation=name)
    assert lalm.model.config.audio_config._attn_implementation == name
    assert lalm.fingerprint()["attention"] == name
    assert "encoder_attention" not in lalm.fingerprint()
    plain = LALM.from_pretrained(folder).logits(prompt)
    torch.testing.assert_close(lalm.logits(prompt), plain, atol=1e-4, rtol=0)


def test_the_attention_of_the_decoder_alone(folder):
    lalm = LALM.from_pretrained(folder, attn_implementation={"text_config": "eager"})
    result = lalm.fingerprint()
    assert result["attention"] == "eager"
    assert result["encoder_attention"] == {"": "sdpa", "audio_config": "sdpa"}
    assert lalm.description.endswith(", eager")


def test_where_the_encoder_lacks_an_attention_the_decoder_has_it(tmp_path):
    """Gemma 4's audio encoder has no SDPA; transformers refuses it for the whole model."""
    model = FAMILIES["gemma4"].model(None)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="scaled_dot_product_attention"):
        type(model).from_pretrained(tmp_path, attn_implementation="sdpa")
    lalm = LALM.from_pretrained(tmp_path, attn_implementation="sdpa")
    result = lalm.fingerprint()
    assert result["attention"] == "sdpa"
    assert result["encoder_attention"] == {"audio_config": "eager"}
    assert lalm.load_options.to_dict() == {"attn_implementation": "sdpa"}


def test_flash_attention_needs_16_bits(folder, monkeypatch):
    monkeypatch.setattr("mata_interp.lalm.loading.attention_of", lambda model: "flash_attention_2")
    one_line(folder, "float32.*16 bits.*bf16")
    assert LALM.from_pretrained(folder, dtype="bf16").dtype == torch.bfloat16


def test_quantisation_needs_its_package(folder, monkeypatch):
    without_bitsandbytes(monkeypatch)
    for quantization in ("4bit", "8bit", BitsAndBytesConfig(load_in_8bit=True)):
        one_line(folder, "pip install bitsandbytes", quantization_config=quantization)


@pytest.mark.parametrize(
    ("dtype", "stated", "compute"),
    [
        (torch.float16, torch.float32, torch.float16),
        (None, torch.float32, torch.float32),
        (None, None, torch.bfloat16),
    ],
)
def test_4_bit_layers_compute_in_the_dtype_of_the_rest(dtype, stated, compute):
    made = load_values.quantization_to_use("4bit", dtype, Qwen2AudioConfig(dtype=stated))
    assert made.load_in_4bit
    assert (made.bnb_4bit_quant_type, made.bnb_4bit_compute_dtype) == ("nf4", compute)
    assert load_values.quantization_to_use("8bit", dtype, None).load_in_8bit


def test_a_large_model_on_the_cpu_is_warned_about(folder, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowDeviceWarning)
        LALM.from_pretrained(folder, device="cpu")
    monkeypatch.setattr(description, "LARGE_ON_CPU", 10_000)
    with pytest.warns(SlowDeviceWarning, match=r"tiny has 0\.0 billion") as caught:
        LALM.from_pretrained(folder, device="cpu")
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_model_that_does_not_fit(folder, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

    monkeypatch.setattr(Qwen2AudioForConditionalGeneration, "from_pretrained", full)
    one_line(folder, "do not fit.*device_map='auto'")


def test_the_options_are_kept_to_load_the_same_model_again(folder, tmp_path, items):
    file = tmp_path / "mine.jinja"
    file.write_text(TEMPLATE)
    lalm = LALM.from_pretrained(
        folder, device="cpu", dtype="bf16", attn_implementation="eager", chat_template=file, token="secret"
    )
    file.unlink()
    again = LALM.from_pretrained(lalm.name, **lalm.load_options.arguments())
    assert again.fingerprint() == lalm.fingerprint()
    assert again.load_options == lalm.load_options
    assert torch.equal(again.prompt(items).inputs["input_ids"], lalm.prompt(items).inputs["input_ids"])
    recorded = lalm.load_options.to_dict()
    assert recorded == json.loads(json.dumps(recorded))
    assert "secret" not in str(recorded) + repr(lalm.load_options)
    assert {**recorded, "chat_template": None} == {
        "device": "cpu",
        "dtype": "bf16",
        "attn_implementation": "eager",
        "chat_template": None,
    }
    assert LALM(lalm.model).load_options is None


def test_how_it_runs_in_one_line(folder, tiny_lalm):
    lalm = LALM.from_pretrained(folder, device="cpu", dtype="bf16")
    assert lalm.description == "tiny on cpu, bfloat16, sdpa"
    assert lalm.description in repr(lalm)
    assert "Qwen2AudioForConditionalGeneration" in repr(lalm)
    lalm.model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    assert lalm.description == "tiny on cpu, bfloat16, bitsandbytes 4-bit, sdpa"
    assert lalm.fingerprint()["quantisation"] == "bitsandbytes 4-bit"


def test_weights_that_accelerate_keeps_elsewhere_have_a_device(folder, tmp_path):
    parts = dict.fromkeys(("audio_tower", "multi_modal_projector", "model.audio_tower"), "cpu")
    lalm = LALM.from_pretrained(folder, device_map="auto")
    assert description.devices_of(lalm.model)
    with torch.device("meta"):
        empty = type(lalm.model)(lalm.model.config)
    empty.hf_device_map = parts | {"language_model": "disk"}
    assert description.devices_of(empty) == ["cpu", "disk"]


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
