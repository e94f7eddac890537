"""Each private or unstable name of another library, alone: after an upgrade, the failing test names it."""

from __future__ import annotations

import ast
import copy
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nnsight
import pytest
import torch
from matplotlib import rc_context
from nnsight import NNsight
from torch import nn
from torch.nn.utils import parametrize
from torch.testing._internal.two_tensor import TwoTensor
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    DynamicCache,
    FalconMambaConfig,
    GraniteSpeechForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import mata_interp
from mata_interp import compat
from tests.tiny import tiny_qwen2_audio

PACKAGE = Path(mata_interp.__file__).parent


@pytest.fixture
def model():
    return tiny_qwen2_audio(seed=0, layers=2)[0]


def attention_of(model) -> nn.Module:
    return model.get_decoder().layers[1].self_attn


# transformers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "interface"),
    [
        (compat.attention_function_table, AttentionInterface),
        (compat.attention_mask_table, AttentionMaskInterface),
    ],
)
def test_global_mapping_is_the_table_that_models_read(table, interface):
    assert "sdpa" in table()
    interface.register("left by a test", print)
    try:
        assert table()["left by a test"] is print
        assert interface()["left by a test"] is print
    finally:
        del table()["left by a test"]
    assert "left by a test" not in interface()


def test_a_function_in_the_table_is_called(model):
    calls = []
    original = compat.attention_function_table()["sdpa"]
    compat.attention_function_table()["sdpa"] = lambda module, *args, **kwargs: (
        calls.append(module) or original(module, *args, **kwargs)
    )
    try:
        model(input_ids=torch.zeros(1, 3, dtype=torch.long))
    finally:
        compat.attention_function_table()["sdpa"] = original
    assert attention_of(model) in calls


def test_local_mapping(model):
    module = attention_of(model)
    table = vars(__import__(type(module).__module__, fromlist=["x"]))["ALL_ATTENTION_FUNCTIONS"]
    assert not compat.family_overrides_attention(module, "sdpa")
    table["sdpa"] = print
    try:
        assert compat.family_overrides_attention(module, "sdpa")
    finally:
        del table["sdpa"]


def test_attention_name_and_set_attention_name(model):
    config, decoder = model.config, model.get_decoder().config
    assert compat.attention_name(decoder) == "sdpa"
    compat.set_attention_name(decoder, "eager")
    assert compat.attention_name(decoder) == "eager"
    assert compat.attention_name(config) == "sdpa", "other configs stay as they are"
    assert compat.attention_name(None) is None
    out = model(input_ids=torch.zeros(1, 3, dtype=torch.long), output_attentions=True)
    assert out.attentions[1] is not None, "the model reads the name from where it is set"


def test_attention_names_of_the_configs_inside(model):
    config = model.config
    names = {"": "sdpa", "text_config": "sdpa", "audio_config": "sdpa"}
    assert compat.attention_names(config) == names
    compat.set_attention_name(config.audio_config, "eager")
    result = compat.attention_names(config, skip=model.get_decoder().config)
    assert result == {"": "sdpa", "audio_config": "eager"}


def test_decoder_config_name(model):
    assert compat.decoder_config_name(model.config) == "text_config"
    assert model.config.text_config is model.get_decoder().config
    assert compat.decoder_config_name(model.config.text_config) is None
    config = type(model.config)()
    config._attn_implementation = {"text_config": "eager"}
    assert compat.attention_names(config)["text_config"] == "eager", "from_pretrained takes names of configs"


def test_sdpa_mask_is_that_of_the_table():
    assert compat.attention_mask_table()["sdpa"] is compat.sdpa_mask


def test_recorded_attention_classes(model):
    assert compat.recorded_attention_classes(model.get_decoder()) == (type(attention_of(model)),)
    assert compat.recorded_attention_classes(nn.Linear(1, 1)) == ()


def test_attention_interface_in_the_source(model):
    assert compat.calls_attention_interface(attention_of(model))
    assert not compat.calls_attention_interface(model.get_decoder().layers[1].mlp)


def test_eager_attention_of_a_module(model):
    """It is what the module calls where the table has no 'eager', and the table is asked first."""
    module, table = attention_of(model), compat.attention_function_table()
    eager = compat.eager_attention(module)
    assert eager is sys.modules[type(module).__module__].eager_attention_forward
    assert compat.eager_attention(nn.Linear(1, 1)) is None
    assert "eager" not in table
    table["eager"] = eager
    try:
        interface = sys.modules[type(module).__module__].ALL_ATTENTION_FUNCTIONS
        assert interface.get_interface("eager", None) is eager
    finally:
        del table["eager"]


def test_commit_hash(model):
    assert compat.loaded_commit(model.config) is None
    config = copy.deepcopy(model.config)
    config._commit_hash = "0123abc"
    assert compat.loaded_commit(config) == "0123abc"


def test_model_mapping(model):
    assert compat.class_for_config(AutoModelForMultimodalLM, model.config) is type(model)
    assert compat.class_for_config(AutoModelForCausalLM, Qwen2Config()) is Qwen2ForCausalLM
    assert compat.class_for_config(AutoModelForCausalLM, None) is None


def test_from_config(model):
    made = compat.model_from_config(type(model), model.config, torch.bfloat16)
    assert made.dtype == torch.bfloat16
    assert list(made.state_dict()) == list(model.state_dict())


def test_name_or_path(model, tmp_path):
    assert compat.loaded_from(model.config) == ""
    model.save_pretrained(tmp_path)
    assert compat.loaded_from(type(model).from_pretrained(tmp_path).config) == str(tmp_path)
    assert set(compat.CONFIG_ORIGIN) - {"dtype"} <= {*model.config.to_dict(), "_name_or_path"}


def test_cache_layers():
    state = DynamicCache(config=FalconMambaConfig(num_hidden_layers=1))
    assert [compat.has_recurrent_state(layer) for layer in state.layers] == [True]
    plain = DynamicCache()
    plain.update(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), 0)
    assert [type(layer) for layer in plain.layers] == [compat.DynamicLayer]
    assert not compat.has_recurrent_state(plain.layers[0])
    assert compat.can_crop(plain.layers[0])
    plain.layers[0].crop(-1)
    assert plain.get_seq_length() == 1


# nnsight ----------------------------------------------------------------------------------------------------


def test_nnsight_module_names(model):
    """nnsight writes nothing else into the modules, its envoys and traces included."""
    decoder = model.get_decoder()
    before = {module: set(vars(module)) for module in decoder.modules()}
    wrapped = NNsight(decoder)
    with wrapped.trace(input_ids=torch.zeros(1, 3, dtype=torch.long)):
        wrapped.layers[1].self_attn.source.attention_interface_1.output[0].save()
    written = set().union(*(set(vars(module)) - names for module, names in before.items()))
    assert written
    assert written <= set(compat.nnsight_module_names())


def test_attention_call_labels(model):
    labels = NNsight(model.get_decoder()).layers[1].self_attn.source.names
    assert compat.attention_call_labels(labels)[-1] == "attention_interface_1"


def test_nnsight_loop_end_and_out_of_order_error():
    """A loop over the steps of a run ends with this warning or error, which the package takes for its end."""
    module = NNsight(nn.Sequential(nn.Linear(2, 2)))

    def loop() -> None:
        with module.trace(torch.zeros(1, 2)) as tracer:
            for _ in tracer.iter[:]:
                module[0].output.save()

    def wrong_order() -> None:
        with module.trace(torch.zeros(1, 2)):
            module.output.save()
            module[0].output.save()

    with pytest.warns(match=compat.NNSIGHT_LOOP_END):
        loop()
    with pytest.raises(compat.OutOfOrderError):
        wrong_order()


def test_nnsight_puts_save_on_every_object():
    """So a class of ours that has a ``save`` defines it itself."""
    assert nnsight
    assert callable(object().save)


# transformer-lens -------------------------------------------------------------------------------------------


def test_transformer_lens_bridge():
    config = Qwen2Config(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    config._attn_implementation = "eager"
    small = Qwen2ForCausalLM(config).eval()
    logits = small(torch.zeros(1, 3, dtype=torch.long)).logits
    bridge = compat.build_transformer_lens_bridge(small, "Qwen2ForCausalLM", config)
    torch.testing.assert_close(bridge(torch.zeros(1, 3, dtype=torch.long)), logits, atol=1e-4, rtol=1e-4)
    assert compat.build_transformer_lens_bridge(small, "NoSuchForCausalLM", config) is None


# torch, PEFT, accelerate ------------------------------------------------------------------------------------


def test_hook_tables(model):
    module = model.get_decoder()
    before = compat.count_hooks(module)

    def hook(*args):
        return None

    handles = [
        module.register_forward_pre_hook(hook),
        module.register_forward_hook(hook),
        module.register_full_backward_pre_hook(hook),
        module.register_full_backward_hook(hook),
        module.register_state_dict_post_hook(hook),
        module.register_load_state_dict_pre_hook(hook),
    ]
    assert compat.count_hooks(module) == before + len(handles)
    assert set(compat.HOOK_TABLES) <= set(vars(module))


def test_forward_hooks_leaves_out_the_inert_ones(model):
    model.get_decoder()(input_ids=torch.zeros(1, 3, dtype=torch.long), output_hidden_states=True)
    assert compat.count_hooks(model.get_decoder().layers[0]) > 0, "transformers' recorder"
    assert list(compat.forward_hooks(model)) == []
    model.get_decoder().register_forward_hook(print)
    ((place, function),) = compat.forward_hooks(model)
    assert place == "forward_hooks model.language_model"
    assert function is print


def test_instance_forward(model):
    module = attention_of(model)
    assert compat.instance_forward(module) is None
    NNsight(module)
    assert compat.instance_forward(module) is None, "nnsight's controller is inert"
    other = model.get_decoder().layers[0].mlp
    other.forward = print
    assert compat.instance_forward(other) is print


def test_parametrizations(model):
    assert list(compat.parametrizations(model)) == []
    parametrize.register_parametrization(model.get_decoder().layers[0].mlp.up_proj, "weight", nn.Identity())
    ((name, kind),) = compat.parametrizations(model)
    assert name.endswith("layers.0.mlp.up_proj.weight")
    assert kind.endswith(".Identity")


def test_adapter_state(model):
    peft = pytest.importorskip("peft")
    assert dict(compat.adapter_state(model)) == {}
    settings = peft.LoraConfig(r=2, lora_alpha=4, target_modules=r".*language_model.*\.q_proj")
    adapted = peft.get_peft_model(model, settings, adapter_name="mine")
    states = dict(compat.adapter_state(adapted))
    assert len(states) == 2
    assert next(iter(states.values())) == {
        "active": ["mine"],
        "disabled": False,
        "merged": [],
        "scaling": {"mine": 2.0},
    }
    with adapted.disable_adapter():
        assert all(state["disabled"] for state in dict(compat.adapter_state(adapted)).values())


def test_switching_adapters(model):
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(r=2, target_modules=r".*language_model.*\.q_proj", init_lora_weights=False)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        model.add_adapter(settings)
        layers = compat.adapter_layers(model)
        adapted = model(input_ids=ids).logits
        compat.set_adapters_enabled(layers, [False] * len(layers))
        assert all(layer.disable_adapters for layer in layers)
        assert torch.equal(model(input_ids=ids).logits, plain)
        compat.set_adapters_enabled(layers, [True] * len(layers))
        assert torch.equal(model(input_ids=ids).logits, adapted)
    assert not torch.equal(adapted, plain)
    assert not compat.switches_adapters(model)
    granite = object.__new__(GraniteSpeechForConditionalGeneration)
    nn.Module.__init__(granite)
    assert not compat.switches_adapters(granite), "it has no adapter"
    granite._hf_peft_config_loaded = True
    assert compat.switches_adapters(granite)


def test_compiled_modules(model):
    decoder = model.get_decoder()
    assert not compat.is_compiled(decoder)
    assert compat.uncompiled(decoder) is decoder
    ids, code = torch.tensor([[1, 2, 3]]), []

    def note(graph, inputs):
        code.append(graph)
        return graph.forward

    around = torch.compile(decoder, backend=note)
    assert compat.is_compiled(around)
    assert compat.uncompiled(around) is decoder
    assert next(iter(around.state_dict())).startswith(compat.COMPILED_PREFIX)
    assert compat.instance_forward(around) is None
    layer, attention = decoder.layers[0], decoder.layers[1].self_attn
    layer.compile(backend=note)
    attention.forward = torch.compile(attention.forward, backend=note)
    assert compat.is_compiled(layer)
    assert compat.is_compiled(attention)
    assert compat.instance_forward(attention) is None
    with torch.no_grad(), compat.without_compilation():
        around(input_ids=ids)
    assert code == []
    with torch.no_grad():
        layer.mlp.compile(backend=note)
        layer.mlp(torch.zeros(1, 1, 32))
    assert len(code) == 1
    attention.forward = torch.compile(attention_of, backend=note)
    assert compat.instance_forward(attention) is attention_of


def test_settle_quantised():
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="of the quantised extra")
    layer = bitsandbytes.nn.Linear8bitLt(8, 8, bias=False, has_fp16_weights=False)
    layer.load_state_dict(nn.Linear(8, 8, bias=False).state_dict())
    layer.to("cpu")
    codes = layer.weight.CB
    assert codes is not None
    compat.settle_quantised(nn.Sequential(layer))
    assert layer.state.CB is codes
    assert layer.weight.CB is None


def test_4bit_weights_stay_unpacked():
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="of the quantised extra")
    layer = bitsandbytes.nn.Linear4bit(64, 32, bias=False, compute_dtype=torch.float32)
    layer.load_state_dict(nn.Linear(64, 32, bias=False).state_dict())
    layer.to("cpu")
    layer.eval().support_avx512bf16_for_cpu = True  # as on a CPU that has these instructions
    codes = layer.weight.data.clone()
    compat.keep_4bit_weights_unpacked(nn.Sequential(layer))
    with torch.no_grad():
        layer(torch.ones(2, 64))
    assert torch.equal(layer.weight.data, codes)


def test_operators_without_a_derivative():
    linear = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8)), dtype=torch.qint8)
    x = torch.ones(1, 8, requires_grad=True)
    assert compat.is_cut(linear(x))
    assert compat.is_cut(x.detach())
    assert not compat.is_cut(nn.Linear(8, 8)(x))


def test_parallel_modules(model):
    assert compat.uncompiled(nn.DataParallel(model)) is model


def test_stored_tensors():
    assert compat.stored_tensors(torch.zeros(2)) is None
    assert compat.stored_tensors(nn.Parameter(torch.zeros(2))) is None
    two = TwoTensor(torch.zeros(2), torch.ones(2))
    parts = compat.stored_tensors(two)
    assert [name for name, _ in parts] == ["a", "b", ""]
    assert torch.equal(parts[1][1], torch.ones(2))


def test_offloaded_tensor(model):
    accelerate = pytest.importorskip("accelerate")
    weight = model.get_decoder().layers[0].mlp.up_proj.weight.detach().clone()
    assert compat.offloaded_tensor(model, "lm_head.weight") is None
    accelerate.cpu_offload(model, torch.device("cpu"))
    stored = dict(model.named_parameters())
    name = next(name for name in stored if name.endswith("layers.0.mlp.up_proj.weight"))
    assert stored[name].is_meta
    assert torch.equal(compat.offloaded_tensor(model, name), weight)
    maps = list(compat.offload_maps(model))
    assert maps
    assert all(values is maps[0] or hasattr(values, "dataset") for values in maps)


def test_offloaded_tensor_that_is_tied(model):
    """accelerate ties again what was tied: the head has no values of its own."""
    accelerate = pytest.importorskip("accelerate")
    weight = model.get_input_embeddings().weight.detach().clone()
    accelerate.cpu_offload(model.get_decoder(), torch.device("cpu"))
    model.lm_head.weight = model.get_input_embeddings().weight
    assert model.lm_head.weight.is_meta
    assert torch.equal(compat.offloaded_tensor(model, "lm_head.weight"), weight)


def test_input_device(model):
    accelerate = pytest.importorskip("accelerate")
    assert compat.input_device(model) == torch.device("cpu")
    accelerate.cpu_offload(model, torch.device("cpu"))
    assert model.device == torch.device("meta")
    assert compat.input_device(model) == torch.device("cpu")


def test_float32_products():
    before = compat.float32_products()
    assert set(before[1]) == {"cuda", "mkldnn"}
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        now = compat.float32_products()
        assert now[1] == before[1] | {"cuda": "tf32"}
        compat.round_no_products(now)
        assert compat.float32_products()[1]["cuda"] == "ieee"
        compat.restore_float32_products(now)
        assert compat.float32_products() == now
    finally:
        compat.restore_float32_products(before)
    assert compat.float32_products() == before


def test_privateuse_name():
    assert not torch.is_autocast_enabled(compat.privateuse_name())


def test_tensor_version():
    tensor = torch.zeros(2)
    before = compat.tensor_version(tensor)
    tensor += 1
    assert compat.tensor_version(tensor) > before
    with torch.inference_mode():
        assert compat.tensor_version(torch.zeros(2)) is None


def test_convolutions():
    assert compat.is_convolution(nn.Conv1d(1, 1, 1))
    assert compat.is_convolution(nn.ConvTranspose2d(1, 1, 1))
    assert not compat.is_convolution(nn.Linear(1, 1))


# The rest of the package -----------------------------------------------------------------------------------

PRIVATE = {
    "__tensor_flatten__",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_can_record_outputs",
    "_compiled_call_impl",
    "_disable_adapters",
    "_ensure_torchvision",
    "_from_config",
    "_global_mapping",
    "_hf_hook",
    "_hf_peft_config_loaded",
    "_local_mapping",
    "_model_mapping",
    "_name_or_path",
    "_orig_mod",
    "_orig_mod.",
    "_torchdynamo_orig_callable",
    "_version",
    "_ConvNd",
    "is_croppable",
    *compat.HOOK_TABLES,
}
UNSTABLE_MODULES = (
    "nnsight.",
    "transformers.cache_utils",
    "transformers.masking_utils",
    "transformers.modeling_utils",
    "transformer_lens.factories",
    "transformer_lens.model_bridge.sources",
)
UNSTABLE_IMPORTS = {"AttentionInterface", "AttentionMaskInterface"}


# matplotlib -------------------------------------------------------------------------------------------------


def test_files_with_shared_font_subsets_show_the_same_text(tmp_path):
    """pypdf is not installed: the widths and the text of the file are compared as matplotlib writes them."""
    from matplotlib.backends import _backend_pdf_ps
    from matplotlib.figure import Figure

    def saved(text):
        figure, stream = Figure(), io.BytesIO()
        figure.text(0.1, 0.5, text)
        with rc_context({"pdf.fonttype": 42, "pdf.compression": 0}):
            figure.savefig(stream, format="pdf", metadata={"CreationDate": None})
        return stream.getvalue()

    def without_font(content):
        return re.findall(rb"/W \[.*?\]|BT.*?ET|beginbfrange.*?endbfrange", content, flags=re.DOTALL)

    original = _backend_pdf_ps.get_glyphs_subset
    texts = ["layers 4\u20137", "\u03b1 \u2265 0.5"]
    plain = [saved(text) for text in texts]
    with compat.kept_font_subsets():
        assert _backend_pdf_ps.get_glyphs_subset is not original
        shared = [saved(text) for text in texts]
        assert shared == [saved(text) for text in texts]
    assert _backend_pdf_ps.get_glyphs_subset is original
    for one, other in zip(plain, shared, strict=True):
        assert len(without_font(one)) >= 3
        assert without_font(one) == without_font(other)
        assert b"FontFile2" in other


def names_used(tree: ast.AST) -> Iterator[str]:
    """Attributes, names as strings (of getattr), imported modules and what is imported from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def offenders(source: str) -> set[str]:
    names = set(names_used(ast.parse(source)))
    called = {name for name in names if re.fullmatch(r"attention_interface(_\\d\+|_\d+|\()", name)}
    return (
        names & (PRIVATE | UNSTABLE_IMPORTS)
        | {name for name in names if name.startswith(UNSTABLE_MODULES) and " " not in name}
        | called
    )


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_private_names_are_in_compat_alone(path):
    if path.name == "compat.py":
        assert offenders(path.read_text(encoding="utf-8")) > {"_global_mapping", "_attn_implementation"}
    else:
        assert offenders(path.read_text(encoding="utf-8")) == set()


def test_an_offender_would_be_found():
    assert offenders("config._attn_implementation = 'x'") == {"_attn_implementation"}
    assert offenders("getattr(config, '_name_or_path', '')") == {"_name_or_path"}
    assert offenders("from nnsight.intervention.source import STATE") == {"nnsight.intervention.source"}
    assert offenders("from transformers import AttentionInterface") == {"AttentionInterface"}
