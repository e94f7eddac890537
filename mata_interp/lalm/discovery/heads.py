"""How many heads an attention module has: from its weights and its own attributes, not from one number.

Configs tell one number of heads for all layers, which is wrong where layers differ; modules know better.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mata_interp.errors import ModelError

__all__ = ["key_heads_of", "output_projection", "query_heads_of"]

_SIZE = ("v_head_dim", "head_dim", "head_size", "attention_head_size")  # of a head's output first
_OUT = ("o_proj", "out_proj", "dense", "c_proj", "wo", "proj")  # what joins the heads again
_COUNT = ("num_heads", "num_attention_heads", "n_heads")


def query_heads_of(module: nn.Module) -> int:
    """The query heads of an attention module.

    The output projection takes all heads side by side; that is what a gate, a fused or a shared projection
    leaves as it is.

    Raises:
        ModelError: neither weights nor attributes say.
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
    raise ModelError(f"{type(module).__name__} does not say how many heads it has.")


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
    """The width a projection takes; also of those that wrap another, as adapters and quantisers do."""
    for part in (projection, getattr(projection, "linear", None), getattr(projection, "base_layer", None)):
        if isinstance(width := getattr(part, "in_features", None), int):
            return width
    return None
