"""Every private or unstable name of other libraries that this package uses.

Other files call the functions and constants below and never these names. After an upgrade of
transformers, nnsight, transformer-lens, PEFT, accelerate, torch or matplotlib, ``tests/test_compat.py``
checks each entry alone and names the one that broke. Each entry states the version in which it was seen to
work.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from nnsight.intervention.interleaver import OutOfOrderError
    from transformers.cache_utils import DynamicLayer
    from transformers.masking_utils import sdpa_mask

__all__ = [
    "COMPILED_PREFIX",
    "CONFIG_ORIGIN",
    "HOOK_TABLES",
    "NNSIGHT_LOOP_END",
    "DynamicLayer",
    "OutOfOrderError",
    "adapter_layers",
    "adapter_state",
    "attention_call_labels",
    "attention_function_table",
    "attention_mask_table",
    "attention_name",
    "attention_names",
    "build_transformer_lens_bridge",
    "calls_attention_interface",
    "can_crop",
    "class_for_config",
    "count_hooks",
    "decoder_config_name",
    "eager_attention",
    "family_overrides_attention",
    "float32_products",
    "forward_as_written",
    "forward_hooks",
    "has_recurrent_state",
    "input_device",
    "instance_forward",
    "is_compiled",
    "is_convolution",
    "is_cut",
    "keep_4bit_weights_unpacked",
    "kept_font_subsets",
    "loaded_commit",
    "loaded_from",
    "model_from_config",
    "nnsight_module_names",
    "offload_maps",
    "offloaded_tensor",
    "parametrizations",
    "privateuse_name",
    "recorded_attention_classes",
    "restore_float32_products",
    "round_no_products",
    "sdpa_mask",
    "set_adapters_enabled",
    "set_attention_name",
    "settle_quantised",
    "stored_tensors",
    "switches_adapters",
    "tensor_version",
    "uncompiled",
    "without_compilation",
]

# Names that other files import from here. Each is imported when first used, so that the page of a run, which
# needs neither transformers nor nnsight, does not wait for them.
_SOURCES = {
    "DynamicLayer": "transformers.cache_utils",
    "OutOfOrderError": "nnsight.intervention.interleaver",
    "sdpa_mask": "transformers.masking_utils",
}


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_SOURCES[name]), name)


# transformers 5.23 -----------------------------------------------------------------------------------------


def attention_function_table() -> dict[str, Callable[..., Any]]:
    """Name -> attention function, one table for all models (``AttentionInterface._global_mapping``).

    ``register`` adds to it and nothing public removes from it.
    """
    from transformers import AttentionInterface

    return AttentionInterface._global_mapping


def attention_mask_table() -> dict[str, Callable[..., Any]]:
    """Name -> mask function, one table for all models (``AttentionMaskInterface._global_mapping``)."""
    from transformers import AttentionMaskInterface

    return AttentionMaskInterface._global_mapping


def family_overrides_attention(module: nn.Module, name: str) -> bool:
    """Whether the module's file has an attention function of its own under a name of the shared table.

    A modeling file looks names up in its ``ALL_ATTENTION_FUNCTIONS``, whose ``_local_mapping`` comes first.
    """
    table = getattr(sys.modules[type(module).__module__], "ALL_ATTENTION_FUNCTIONS", None)
    return name in getattr(table, "_local_mapping", {})


def attention_name(config: Any) -> str | None:
    """The name of the attention function that a config selects (``_attn_implementation``)."""
    return getattr(config, "_attn_implementation", None)


def attention_names(config: Any, skip: Any = None) -> dict[str, Any]:
    """The attention function of each config inside a config (``sub_configs``), by dotted name.

    Args:
        config: that of a model; "" is the name of the config itself.
        skip: a config that is left out, with those inside it.
    """
    functions = {}
    pending = [("", config)]
    while pending:
        place, part = pending.pop()
        if part is None or part is skip:
            continue
        functions[place] = attention_name(part)
        inner = getattr(part, "sub_configs", None) or {}
        pending += [(f"{place}.{name}" if place else name, getattr(part, name, None)) for name in inner]
    return functions


def decoder_config_name(config: Any) -> str | None:
    """Under which name a config holds that of its decoder (``sub_configs``); None where it is that itself."""
    decoder = config.get_text_config(decoder=True)
    inner = getattr(config, "sub_configs", None) or {}
    return next((name for name in inner if getattr(config, name, None) is decoder), None)


def set_attention_name(config: Any, name: str | None) -> None:
    """Select an attention function in one config alone (``_attn_implementation_internal``).

    ``set_attn_implementation`` of composite models refuses or changes more than the decoder, and the setter
    of ``_attn_implementation`` changes the configs inside.
    """
    config._attn_implementation_internal = name


def recorded_attention_classes(decoder: Any) -> tuple[type, ...]:
    """The module classes that a decoder records ``attentions`` of (``_can_record_outputs``); may be empty.

    An entry is a class, a recorder with a ``target_class``, or a list of them.
    """
    entries = (getattr(decoder, "_can_record_outputs", None) or {}).get("attentions")
    several = entries if isinstance(entries, list | tuple) else [entries]
    classes = [getattr(entry, "target_class", entry) for entry in several]
    return tuple(entry for entry in classes if isinstance(entry, type))


def calls_attention_interface(module: nn.Module) -> bool:
    """Whether the source of a module's forward calls the attention function under its usual name."""
    try:
        return "attention_interface(" in inspect.getsource(type(module).forward)
    except (OSError, TypeError):
        return False


def class_for_config(auto: Any, config: Any) -> type | None:
    """The class that an ``AutoModelFor...`` makes of a config (``_model_mapping``); None without one."""
    return auto._model_mapping.get(type(config), None)


def model_from_config(kind: Any, config: Any, dtype: torch.dtype) -> Any:
    """A model with fresh weights in one dtype (``_from_config``; the public way is the auto classes')."""
    return kind._from_config(config, dtype=dtype)


def eager_attention(module: nn.Module) -> Callable[..., Any] | None:
    """The eager attention that a module calls where the shared table has none; None where it is not known.

    It is the second argument of ``get_interface`` in the module's forward, a function of its own file. The
    table is searched for ``"eager"`` first, and has no such entry by default.
    """
    return _eager_attention(type(module))


@lru_cache(maxsize=256)
def _eager_attention(kind: type) -> Callable[..., Any] | None:
    forward = inspect.unwrap(kind.forward)  # type: ignore[attr-defined]
    try:
        source = inspect.getsource(forward)
    except (OSError, TypeError):
        return None
    named = re.search(r"\.get_interface\([^,()]*,\s*(\w+)\s*,?\s*\)", source)
    return forward.__globals__.get(named[1]) if named else None


def loaded_from(config: Any) -> str:
    """The folder or hub id that a model was loaded from (``_name_or_path``); "" where it was not loaded."""
    return getattr(config, "_name_or_path", "") or ""


def loaded_commit(config: Any) -> str | None:
    """The commit on the hub that a model was loaded from (``_commit_hash``); None where it was not."""
    return getattr(config, "_commit_hash", None)


CONFIG_ORIGIN = ("_name_or_path", "transformers_version", "architectures", "dtype")
"""Entries of a config's dictionary that say where the config came from, not what the model computes."""


def has_recurrent_state(layer: Any) -> bool:
    """Whether a cache layer keeps the state of a recurrence or convolution."""
    from transformers.cache_utils import LinearAttentionCacheLayerMixin

    return isinstance(layer, LinearAttentionCacheLayerMixin)


def can_crop(layer: Any) -> bool:
    """Whether a cache layer says that tokens can be removed from its end (``is_croppable``)."""
    return bool(layer.is_croppable)


# nnsight 0.8 -----------------------------------------------------------------------------------------------

NNSIGHT_LOOP_END = ".*the loop asked for a step the run did not make"
"""The warning with which a loop over all steps of a generation ends; it ends so by design."""


@lru_cache(1)
def nnsight_module_names() -> tuple[str, ...]:
    """What nnsight writes into ``vars()`` of each module that it wraps."""
    from nnsight.intervention.source import BODY_FORWARD, STATE

    return "forward", STATE, BODY_FORWARD


def attention_call_labels(names: list[str]) -> list[str]:
    """The labels of ``.source`` under which an attention module calls its attention function.

    The function is the local variable ``attention_interface`` in every family of transformers; the number
    counts how often the name is mentioned before.
    """
    return [name for name in names if re.fullmatch(r"attention_interface_\d+", name)]


# transformer-lens 4.3 --------------------------------------------------------------------------------------


def build_transformer_lens_bridge(model: Any, architecture: str, config: Any) -> Any:
    """A TransformerBridge on a model, which it changes; None where no adapter knows the architecture.

    Not ``boot_transformers``: that looks for a processor, and where torchvision is missing installs it with
    pip, which replaces the running torch. The import silences transformers for the whole process, so that
    the level of its logger is restored.
    """
    level = logging.getLogger("transformers").level
    try:
        with warnings.catch_warnings():
            from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
            from transformer_lens.model_bridge.sources import build_bridge_from_module
    finally:
        logging.getLogger("transformers").setLevel(level)
    if architecture not in SUPPORTED_ARCHITECTURES:
        return None
    return build_bridge_from_module(model, architecture, hf_config=config)


# torch 2.13, PEFT 0.19, accelerate 1.13 --------------------------------------------------------------------

# Hooks and forwards that these leave on a model compute nothing else: transformers' output recorder (inert
# without output_attentions and the like), accelerate's placement of weights, nnsight's inert controller.
_INERT_MODULES = ("transformers.utils.output_capturing", "accelerate.", "nnsight.")


HOOK_TABLES = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)
"""Attributes of every module that hold its hooks by number."""


def count_hooks(module: nn.Module) -> int:
    """How many hooks of any kind a module has."""
    return sum(len(getattr(module, name)) for name in HOOK_TABLES)


def forward_hooks(model: nn.Module) -> Iterator[tuple[str, Callable[..., Any]]]:
    """``(place, function)`` of every hook that takes part in forwards, the inert ones of libraries left out.

    ``place`` is the kind of hook and the module's name. Hooks of this package do not count.
    """
    for name, module in model.named_modules():
        for kind in ("_forward_pre_hooks", "_forward_hooks"):
            for function in getattr(module, kind).values():
                if not _is_inert(function):
                    yield f"{kind.strip('_')} {name}", function


def instance_forward(module: nn.Module) -> Callable[..., Any] | None:
    """A forward set on one module in place of its class's; None for those that compute nothing else."""
    forward = vars(module).get("forward")
    if "_orig_mod" in module._modules:  # torch.compile around a module: what is called is in it
        return None
    if (written := forward_as_written(module)) is not None:
        forward = None if getattr(written, "__func__", None) is type(module).forward else written
    return None if forward is None or _is_inert(forward) or hasattr(module, "_hf_hook") else forward


def _is_inert(function: Any) -> bool:
    while hasattr(function, "func") and hasattr(function, "args"):  # functools.partial
        function = function.func
    # a callable object may carry the module of the function that it wraps
    sources = (str(getattr(function, "__module__", "")), type(function).__module__)
    return any(source.startswith(("mata_interp.", *_INERT_MODULES)) for source in sources)


def parametrizations(model: nn.Module) -> Iterator[tuple[str, str]]:
    """``(parameter, class of the parametrization)`` of every parametrised tensor, in order."""
    for name, module in model.named_modules():
        if "parametrizations" in module._modules:
            for parameter, several in module.parametrizations.items():  # type: ignore[union-attr, operator]
                for one in several:
                    yield f"{name}.{parameter}", f"{type(one).__module__}.{type(one).__qualname__}"


def adapter_state(model: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(module, state)`` of every adapter layer of PEFT: active and merged adapters, on or off, scaling."""
    for name, module in model.named_modules():
        if _is_adapter_layer(module):
            scaling = getattr(module, "scaling", None)
            yield (
                name,
                {
                    "active": list(module.active_adapters),  # type: ignore[arg-type]
                    "disabled": bool(module.disable_adapters),
                    "merged": list(module.merged_adapters),  # type: ignore[arg-type]
                    "scaling": dict(scaling) if isinstance(scaling, Mapping) else {},
                },
            )


def _is_adapter_layer(module: Any) -> bool:
    return isinstance(getattr(module, "active_adapters", None), list) and hasattr(module, "merged_adapters")


def adapter_layers(model: nn.Module) -> list[Any]:
    """The adapter layers of PEFT in a model; each has ``disable_adapters``, whether it is off."""
    return [module for module in model.modules() if _is_adapter_layer(module)]


def set_adapters_enabled(layers: Sequence[Any], enabled: Sequence[bool]) -> None:
    """Switch adapter layers on or off (``_disable_adapters``).

    PEFT's own ``enable_adapters`` also changes which weights are trained.
    """
    for layer, on in zip(layers, enabled, strict=True):
        layer._disable_adapters = not on


def switches_adapters(model: nn.Module) -> bool:
    """Whether a model's own ``generate`` switches its adapter on and off, as Granite Speech's does.

    It does so for adapters that transformers loaded (``_hf_peft_config_loaded``), and leaves them so.
    """
    return bool(getattr(model, "_hf_peft_config_loaded", False)) and _generate_switches_adapters(type(model))


@lru_cache(maxsize=64)
def _generate_switches_adapters(kind: type) -> bool:
    try:
        return "disable_adapters" in inspect.getsource(kind.generate)  # type: ignore[attr-defined]
    except (AttributeError, OSError, TypeError):
        return False


def forward_as_written(module: nn.Module) -> Callable[..., Any] | None:
    """What ``module.forward = torch.compile(module.forward)`` compiled; None where the forward is not."""
    return getattr(vars(module).get("forward"), "_torchdynamo_orig_callable", None)


COMPILED_PREFIX = "_orig_mod."
"""What ``torch.compile(module)`` puts into the names of a module's parts."""


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of a module go to code made by ``torch.compile``, wherever that was applied.

    ``torch.compile(module)`` puts a module around it (``_orig_mod``), ``module.compile()`` keeps the compiled
    call on it (``_compiled_call_impl``), and a compiled function names its original
    (``_torchdynamo_orig_callable``).
    """
    return (
        module._compiled_call_impl is not None
        or "_orig_mod" in module._modules
        or forward_as_written(module) is not None
    )


def uncompiled(model: Any) -> Any:
    """A module without what ``torch.compile``, DataParallel or DistributedDataParallel put around it."""
    while isinstance(model, nn.Module):
        if (inner := model._modules.get("_orig_mod")) is None:
            parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
            inner = model.module if parallel else None
        if inner is None:
            break
        model = inner
    return model


def without_compilation() -> AbstractContextManager[Any]:
    """Inside, whatever was compiled runs as it was written (``torch.compiler.set_stance``, torch 2.6)."""
    stance: Any = torch.compiler.set_stance
    return stance("force_eager")


def settle_quantised(model: nn.Module) -> None:
    """Let layers of bitsandbytes take what their weights hold (``init_8bit_state``), as in a first forward.

    Before that the codes are an attribute of the weight, which the first of several modules that share the
    weight takes away from the others (bitsandbytes 0.50).
    """
    for module in model.modules():
        if hasattr(module, "init_8bit_state") and getattr(module.weight, "CB", None) is not None:
            module.init_8bit_state()  # type: ignore[operator]


def keep_4bit_weights_unpacked(model: nn.Module) -> None:
    """Let 4-bit layers of bitsandbytes compute with the weights as they are stored, also on a CPU.

    On CPUs with bfloat16 instructions (AVX-512) their first forward rewrites the weights for a kernel that
    rounds to bfloat16, whatever the compute dtype, and that refuses layers whose sizes are no multiples of 32
    and 64. The weights would change under their fingerprint, and logits with the size of a batch
    (bitsandbytes 0.50: ``support_avx512bf16_for_cpu``). Layers that have run before stay as they are.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def is_cut(output: Tensor) -> bool:
    """Whether no gradient comes through an operator with this output.

    An operator without a derivative leaves either no graph, or a node that warns (``WarnNotImplemented``) or
    raises (``NotImplemented``) in the backward pass.
    """
    return not output.requires_grad or (
        output.grad_fn is not None and "NotImplemented" in output.grad_fn.name()
    )


def stored_tensors(tensor: Tensor) -> list[tuple[str, Any]] | None:
    """``(name, value)`` of what a tensor of another class than torch's consists of; None for torch's own.

    Quantised and distributed tensors name their inner tensors in ``__tensor_flatten__``, with what else they
    hold as the last entry.

    Raises:
        TypeError: the class does not say what its tensors consist of.
    """
    if type(tensor) in (Tensor, nn.Parameter) or not hasattr(type(tensor), "__tensor_flatten__"):
        return None
    names, more = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return [*((name, getattr(tensor, name)) for name in names), ("", more)]


def _placing_hooks(module: nn.Module) -> tuple[Any, ...]:
    """The hooks by which accelerate moves a module's inputs and weights (``_hf_hook``, one or several)."""
    hook: Any = getattr(module, "_hf_hook", None)
    return () if hook is None else (hook, *getattr(hook, "hooks", ()))


def offloaded_tensor(model: nn.Module, name: str) -> Tensor | None:
    """The values of a tensor that accelerate keeps on the CPU or on disk while the model has it on meta.

    A hook on the tensor's module, or on one around it, has a ``weights_map``. Tensors that are tied may be in
    it under one of their names only.
    """
    for one in _names_of_same(model, name):
        parts = one.split(".")
        for end in reversed(range(len(parts))):
            for hook in _placing_hooks(model.get_submodule(".".join(parts[:end]))):
                try:
                    return hook.weights_map[".".join(parts[end:])]
                except (AttributeError, KeyError, TypeError):  # no map, or not in it
                    continue
    return None


def _names_of_same(model: nn.Module, name: str) -> Iterator[str]:
    """A parameter's name, then the names of parameters that are the same tensor object."""
    yield name
    tensors = dict(model.named_parameters(remove_duplicate=False))
    yield from (other for other in tensors if other != name and tensors[other] is tensors.get(name))


def offload_maps(model: nn.Module) -> Iterator[Any]:
    """The mappings in which accelerate keeps the weights of a model that are on the CPU or on disk."""
    for module in model.modules():
        for hook in _placing_hooks(module):
            if (values := getattr(hook, "weights_map", None)) is not None:
                yield values


def input_device(model: nn.Module) -> torch.device:
    """Where a model's inputs go: to its weights, or to where accelerate takes these from the CPU or disk.

    accelerate leaves such weights on meta, and its hooks name their ``execution_device``.
    """
    first = next(model.parameters()).device
    if first.type != "meta":
        return first
    for module in model.modules():
        for hook in _placing_hooks(module):
            if (device := getattr(hook, "execution_device", None)) is not None:
                return torch.device(device)
    return first


def tensor_version(tensor: Tensor) -> int | None:
    """How often a tensor was changed in place (``_version``); None where torch does not count.

    Changes through ``tensor.data`` are not counted.
    """
    return None if tensor.is_inference() else tensor._version


_PRODUCTS = ("cuda", "mkldnn")  # backends with a setting of their own for float32 products


def float32_products() -> tuple[str | None, dict[str, str]]:
    """How float32 products of matrices are computed, for `restore_float32_products`.

    There is an old setting (``torch.set_float32_matmul_precision``) and one for each backend
    (``torch.backends.cuda.matmul.fp32_precision``, ``_get_fp32_precision_getter``). The old one cannot be
    read where the two disagree; it is None then.
    """
    by_backend = {name: torch._C._get_fp32_precision_getter(name, "matmul") for name in _PRODUCTS}
    try:
        return torch.get_float32_matmul_precision(), by_backend
    except RuntimeError:
        return None, by_backend


def round_no_products(before: tuple[str | None, dict[str, str]]) -> None:
    """Compute float32 products in float32, torch's default, if ``before``, the setting now, is another."""
    if before[0] != "highest" or any(value not in ("none", "ieee") for value in before[1].values()):
        torch.set_float32_matmul_precision("highest")


def restore_float32_products(before: tuple[str | None, dict[str, str]]) -> None:
    """Undo `round_no_products`."""
    if float32_products() == before:
        return
    if before[0] is not None:
        torch.set_float32_matmul_precision(before[0])
    for name, value in before[1].items():
        torch._C._set_fp32_precision_setter(name, "matmul", value)


def privateuse_name() -> str:
    """The device type of the backend that is not torch's own (``_get_privateuse1_backend_name``)."""
    return torch._C._get_privateuse1_backend_name()


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is one of torch's convolutions (``_ConvNd`` is their base)."""
    return isinstance(module, nn.modules.conv._ConvNd)


# matplotlib -------------------------------------------------------------------------------------------------


@contextmanager
def kept_font_subsets() -> Iterator[None]:
    """Inside, PDF files of matplotlib share subsets of fonts (``_backend_pdf_ps.get_glyphs_subset``, 3.11).

    matplotlib reads and reduces the whole font for every file, which takes most of a small figure's time. A
    subset here has printable ASCII, signs that labels often have, and what else a figure uses, so that most
    figures have the same. Other versions of the function are left alone.
    """
    from matplotlib.backends import _backend_pdf_ps as fonts

    original: Any = fonts.get_glyphs_subset
    if list(inspect.signature(original).parameters) != ["fontfile", "glyphs"]:
        yield
        return
    fonts.get_glyphs_subset = lambda fontfile, glyphs: nullcontext(
        _font_subset(original, fontfile, frozenset(glyphs) | _usual_glyphs(fontfile))
    )
    try:
        yield
    finally:
        fonts.get_glyphs_subset = original


@lru_cache(maxsize=16)
def _usual_glyphs(fontfile: Any) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    usual = {
        *range(32, 127),
        *map(ord, "\u00a0\u00b1\u00b7\u00d7\u03b1\u0394\u2013\u2014\u2019\u2026\u202f\u2212\u2264\u2265"),
    }
    return frozenset(glyph for code, glyph in FT2Font(fontfile).get_charmap().items() if code in usual)


@lru_cache(maxsize=16)
def _font_subset(original: Callable[..., Any], fontfile: Any, glyphs: frozenset[int]) -> Any:
    """A subset that stays open; matplotlib would close it at the end of its ``with``."""
    return original(fontfile, set(glyphs)).__enter__()
