"""How many heads an attention module has: from its weights and attributes.

A config states one number of heads for all layers, which is wrong where layers differ.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mata_interp.errors import ModelError

__all__ = ["key_heads_of", "output_projection", "query_heads_of"]

_SIZE = (
    "v_head_dim",
    "head_dim",
    "head_size",
    "attention_head_size",
)  # size of a head; that of its output first
_OUT = ("o_proj", "out_proj", "dense", "c_proj", "wo", "proj")  # output projections
_COUNT = ("num_heads", "num_attention_heads", "n_heads")


def query_heads_of(module: nn.Module) -> int:
    """The query heads of an attention module.

    The output projection takes all heads side by side, also in modules with a gate or with fused or shared
    projections.

    Raises:
        ModelError: neither its weights nor its attributes show it.
    """
    size = next((int(n) for name in _SIZE if isinstance(n := getattr(module, name, None), int)), None)
    joined = next((p for name in _OUT if (p := _linear(getattr(module, name, None))) is not None), None)
    if size and joined is not None and joined % size == 0:
        return joined // size
    config: Any = getattr(module, "config", None)
    for place in (module, config):
        for name in _COUNT:
            if isinstance(count := getattr(place, name, None), int):
                return count
    raise ModelError(f"{type(module).__name__} shows no number of heads in its weights and attributes.")


def key_heads_of(module: nn.Module, heads: int) -> int:
    """The key heads of an attention module with so many query heads."""
    if isinstance(groups := getattr(module, "num_key_value_groups", None), int) and groups:
        return heads // groups
    config: Any = getattr(module, "config", None)
    for place in (module, config):
        if isinstance(count := getattr(place, "num_key_value_heads", None), int):
            return count
    return heads


def output_projection(module: nn.Module) -> Any:
    """The projection of an attention module that joins its heads; None if none has a known name."""
    return next((part for name in _OUT if (part := getattr(module, name, None)) is not None), None)


def _linear(projection: Any) -> int | None:
    """The input width of a projection, also of one that wraps another, as adapters and quantisers do."""
    for part in (projection, getattr(projection, "linear", None), getattr(projection, "base_layer", None)):
        if isinstance(width := getattr(part, "in_features", None), int):
            return width
    return None
