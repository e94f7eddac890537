"""What distinguishes one model from another, so that results of two are never mixed.

A fingerprint is read from the model each time it is asked for: weights, dtype, adapters, hooks and
parametrisations may change at any time after a model was loaded.
"""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from mata_interp.compat import (
    COMPILED_PREFIX,
    CONFIG_ORIGIN,
    adapter_state,
    forward_hooks,
    instance_forward,
    offloaded_tensor,
    parametrizations,
    stored_tensors,
    tensor_version,
)
from mata_interp.errors import ModelError

from .description import attention_of, encoder_attention_of, quantisation_of
from .generation_settings import settings_in_force

__all__ = ["fingerprint", "weights_sha256"]

BLOCK_BYTES = 64 * 2**20  # of a tensor that are copied to the CPU and hashed at once


def fingerprint(model: Any) -> dict[str, Any]:
    """What distinguishes a model, as plain JSON data.

    Args:
        model: a transformers model, with or without PEFT around it.

    Returns:
        ``class``; ``dtype``; ``attention``, the name of its decoder's attention function;
        ``encoder_attention``, those of its other parts, there where they differ; ``quantisation``, as
        "bitsandbytes 8-bit", there where its config states one; ``config_sha256``; ``generation_sha256``, of
        the generation settings that decide what it answers; ``weights_sha256``, of all values of all
        parameters and buffers; ``adapters``, the active and merged adapters of PEFT, whether they are
        disabled, and a hash of their state by layer; ``changes``, hooks, parametrisations and forwards that
        change what the model computes, without those of this package; ``versions`` of the libraries that
        compute it.

    Raises:
        ModelError: the values of a weight cannot be read.
    """
    config = json.dumps(_without_origin(model.config.to_dict()), sort_keys=True, default=str)
    generation = json.dumps(settings_in_force(model), sort_keys=True, default=str)
    differing = {"encoder_attention": encoder_attention_of(model), "quantisation": quantisation_of(model)}
    return {
        "class": type(model).__name__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": attention_of(model),
        **{name: value for name, value in differing.items() if value},
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "generation_sha256": hashlib.sha256(generation.encode()).hexdigest(),
        "weights_sha256": weights_sha256(model),
        "adapters": _adapters(model),
        "changes": _changes(model),
        "versions": dict(_versions()),
    }


@functools.cache
def _versions() -> dict[str, str]:
    """Of the libraries that compute a model, read once."""
    return {name: version(name) for name in ("torch", "transformers", "nnsight")}


def _without_origin(value: Any) -> Any:
    """A config without the entries that say where it came from."""
    if not isinstance(value, dict):
        return value
    return {key: _without_origin(inner) for key, inner in value.items() if key not in CONFIG_ORIGIN}


def _adapters(model: nn.Module) -> dict[str, Any] | None:
    """The state of PEFT's layers; None without any."""
    layers = dict(adapter_state(model))
    if not layers:
        return None
    by_layer = json.dumps(layers, sort_keys=True, default=str)
    return {
        "active": sorted({name for state in layers.values() for name in state["active"]}),
        "merged": sorted({name for state in layers.values() for name in state["merged"]}),
        "disabled": any(state["disabled"] for state in layers.values()),
        "sha256": hashlib.sha256(by_layer.encode()).hexdigest(),
    }


def _changes(model: nn.Module) -> list[str]:
    """Hooks, parametrisations and forwards on single modules: ``"forward_hooks layer.0: f 0123abcd"``."""
    changes = [f"{place}: {_describe(function)}" for place, function in forward_hooks(model)]
    changes += [f"parametrization {name}: {kind}" for name, kind in parametrizations(model)]
    for name, module in model.named_modules():
        forward = instance_forward(module)
        if forward is not None:
            changes.append(f"forward {name}: {_describe(forward)}")
    return changes


# Functions --------------------------------------------------------------------------------------------------


def _describe(function: Any) -> str:
    """The name of a function or callable object, and a hash of its code and of the values it holds."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    digest = hashlib.sha256()
    for part in _parts(function, depth=6):
        digest.update(part)
    return f"{name} {digest.hexdigest()[:16]}"


def _parts(value: Any, depth: int) -> Iterator[bytes]:
    """What a value consists of, as the same bytes in every process; below ``depth`` its type alone."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    yield kind.encode()
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield repr(value).encode()
    elif depth == 0 or isinstance(value, type):
        yield getattr(value, "__qualname__", "").encode()
    else:
        yield from _inner_parts(value, depth - 1)


def _inner_parts(value: Any, depth: int) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        yield _digest_of(value, _tensor_digest)
    elif isinstance(value, nn.Module):  # the model itself, often; its weights are hashed elsewhere
        yield repr(value).encode()
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(repr, value))).encode()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield repr(key).encode()
            yield from _parts(inner, depth)
    else:
        for inner in value if isinstance(value, list | tuple) else _members(value):
            yield from _parts(inner, depth)


def _members(value: Any) -> list[Any]:
    """What decides the behaviour of a function, of its code, or of any other object."""
    if isinstance(value, CodeType):
        return [value.co_code, value.co_names, *value.co_consts]
    if isinstance(value, FunctionType):
        cells = [_contents(cell) for cell in value.__closure__ or ()]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, cells]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if hasattr(value, "func") and hasattr(value, "args") and hasattr(value, "keywords"):  # partial
        return [value.func, value.args, value.keywords]
    return [dict(getattr(value, "__dict__", {}))]


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


# Weights ----------------------------------------------------------------------------------------------------


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of names, shapes, dtypes and all values of a model's parameters and persistent buffers."""
    weights = hashlib.sha256()
    for name, value in sorted(model.state_dict(keep_vars=True).items()):
        name = name.replace(COMPILED_PREFIX, "")  # what torch.compile puts into names changes no weight
        if not isinstance(value, Tensor):  # packed weights of torch's quantised layers
            weights.update(name.encode())
            for part in _parts(value, depth=6):
                weights.update(part)
            continue
        weights.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        stored = offloaded_tensor(model, name) if value.is_meta else value
        try:
            weights.update(b"not loaded" if stored is None else _digest_of(stored, _digests))
        except (RuntimeError, NotImplementedError, TypeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ModelError(
                f"The weights {name!r} are a {type(value).__name__}, whose values cannot be read, so that "
                f"this model cannot be told from others: {reason}"
            ) from error
    return weights.hexdigest()


def _digest_of(tensor: Tensor, digest: Callable[[Tensor], bytes]) -> bytes:
    """The digest of a tensor; of one that consists of others, as quantised ones do, of all of these."""
    inner = stored_tensors(tensor)
    if inner is None:
        return digest(tensor)
    whole = hashlib.sha256(type(tensor).__qualname__.encode())
    for name, value in inner:
        whole.update(name.encode())
        parts = [_digest_of(value, digest)] if isinstance(value, Tensor) else _parts(value, depth=6)
        for part in parts:
            whole.update(part)
    return whole.digest()


class _Digests:
    """Digests of tensors, computed once and kept as long as a tensor stays as it is.

    A tensor counts as unchanged if its memory, shape, dtype and version are the same, and so is the sum of
    each of its rows: changes through ``tensor.data`` leave the version as it is.
    """

    def __init__(self) -> None:
        self._stored: dict[int, tuple[Any, tuple, bytes, bytes]] = {}
        self._lock = threading.Lock()

    def __call__(self, tensor: Tensor) -> bytes:
        state = (
            tensor.data_ptr(),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.dtype,
            tensor_version(tensor),
        )
        sums, key = _row_sums(tensor), id(tensor)
        with self._lock:
            stored = self._stored.get(key)
        if stored is not None and stored[0]() is tensor and stored[1:3] == (state, sums):
            return stored[3]
        digest = _tensor_digest(tensor)
        forget: Callable[[Any], Any] = lambda _: self._stored.pop(key, None)  # noqa: E731
        with self._lock:
            self._stored[key] = weakref.ref(tensor, forget), state, sums, digest
        return digest


_digests = _Digests()


def _tensor_digest(tensor: Tensor) -> bytes:
    """SHA-256 of all values."""
    digest = hashlib.sha256()
    values = _as_integers(tensor).flatten()
    step = max(1, BLOCK_BYTES // values.element_size())
    for begin in range(0, len(values), step):
        digest.update(values[begin : begin + step].cpu().numpy().tobytes())
    return digest.digest()


def _row_sums(tensor: Tensor) -> bytes:
    """The exact sum of each row's bits, a number for each: one pass over the tensor where it is."""
    values = _as_integers(tensor)
    if not values.numel():
        return b""
    rows = values.reshape(-1, values.shape[-1]) if values.dim() > 1 else values.reshape(1, -1)
    if rows.shape[1] * rows.element_size() % 8 == 0 and rows.storage_offset() * rows.element_size() % 8 == 0:
        rows = rows.view(torch.int64)  # thirty times faster than a sum of smaller integers
    return rows.sum(-1, dtype=torch.int64).cpu().numpy().tobytes()


def _as_integers(tensor: Tensor) -> Tensor:
    """The same bits as whole numbers; of tensors that do not show their bits, the values in float32."""
    tensor = tensor.detach()
    if tensor.is_quantized:  # torch's own kinds, which show their bits wrongly or not at all
        return _bits(tensor.dequantize())
    try:
        return _bits(tensor)
    except (RuntimeError, NotImplementedError, TypeError):  # sparse kinds
        return _bits((tensor.to_dense() if tensor.layout != torch.strided else tensor).to(torch.float32))


def _bits(tensor: Tensor) -> Tensor:
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.contiguous().view(integers[tensor.element_size()])
