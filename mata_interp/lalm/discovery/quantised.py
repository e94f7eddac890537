"""Which layers of a model hold quantised weights, and the dtype in which the model computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["compute_dtype", "describe_quantised", "quantised_layers"]

_NARROW = 1  # bytes; fp8 and smaller are ways to store weights, in which no model computes


def compute_dtype(model: Any) -> torch.dtype:
    """The dtype of a model's activations: of its first floating-point weights of more than 8 bits."""
    dtypes = [weight.dtype for weight in model.parameters() if weight.is_floating_point()]
    stated = getattr(model.config, "dtype", None)
    dtypes += [stated] if isinstance(stated, torch.dtype) else []
    return next((dtype for dtype in dtypes if dtype.itemsize > _NARROW), torch.float32)


def quantised_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of a model, by name, whose weights are not plain numbers of 16 bits or more.

    Whatever quantised them: bitsandbytes, torchao, torch itself, GPTQ, AWQ, fp8 checkpoints.
    """
    return {name: module for name, module in model.named_modules() if _is_quantised(module)}


def describe_quantised(model: nn.Module, decoder: nn.Module) -> str:
    """``"quantised: 56 layers of the decoder, 24 of audio_tower (Linear8bitLt)"``; "" where none is.

    Args:
        model: the whole model.
        decoder: its decoder.
    """
    layers = quantised_layers(model)
    if not layers:
        return ""
    inside = {id(module) for module in decoder.modules()}
    places = Counter(
        "the decoder" if id(module) in inside else _part(name) for name, module in layers.items()
    )
    kinds = sorted({_kind(module) for module in layers.values()})
    counts = [f"{count} of {place}" for place, count in places.items()]
    return f"quantised layers: {', '.join(counts)} ({', '.join(kinds)})"


def _part(name: str) -> str:
    """The part of a model that a layer belongs to: ``"model.audio_tower.layers.0.fc1"`` -> audio_tower."""
    parts = [part for part in name.split(".") if part not in ("model", "base_model", "thinker")]
    return parts[0] if parts else name


def _is_quantised(module: nn.Module) -> bool:
    if not isinstance(getattr(module, "in_features", None), int):
        return False
    weight = _weight(module)
    if weight is None:  # packed under another name, as in GPTQ and AWQ layers; not a layer around another
        return any(not tensor.is_floating_point() for tensor in _own_tensors(module))
    plain = type(weight) in (Tensor, nn.Parameter)
    return not (plain and weight.is_floating_point() and weight.dtype.itemsize > _NARROW)


def _weight(module: nn.Module) -> Tensor | None:
    """A module's own weight. Torch's quantised layers have a method of that name."""
    tensors = dict(module.named_buffers(recurse=False)) | dict(module.named_parameters(recurse=False))
    weight: Any = tensors.get("weight")
    if weight is None and callable(method := getattr(type(module), "weight", None)):
        weight = method(module)
    return weight if isinstance(weight, Tensor) else None


def _own_tensors(module: nn.Module) -> Iterable[Tensor]:
    return (*module.parameters(recurse=False), *module.buffers(recurse=False))


def _kind(module: nn.Module) -> str:
    """``"Linear8bitLt"``; of a plain layer with special weights, their class, too."""
    weight = _weight(module)
    if weight is None or type(module) is not nn.Linear:
        return type(module).__name__
    special = type(weight).__name__ if type(weight) not in (Tensor, nn.Parameter) else str(weight.dtype)
    return f"{type(module).__name__} of {special.removeprefix('torch.')}"
