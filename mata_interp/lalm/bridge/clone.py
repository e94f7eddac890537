"""A clone of a model that shares its weights, for tools that change the model they work on.

transformer-lens puts modules of its own in place of a model's and switches it to eager attention. It gets a
clone, and the model stays unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from mata_interp.compat import offload_maps, set_attention_name, settle_quantised

from ..calls.function_table import configs_of

__all__ = ["clone_sharing_weights", "use_eager"]


def clone_sharing_weights(model: Any) -> Any:
    """The same model made of other modules: weights and buffers are shared, configs and hooks are copies.

    Costs no memory for weights, and computes bit for bit what the model computes in evaluation mode.
    """
    settle_quantised(model)
    shared = {id(held): held for held in (*_tensors(model), *offload_maps(model))}
    return copy.deepcopy(model, shared).eval()


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and what quantised layers keep beside them (bitsandbytes: in a ``state``)."""
    yield from (*model.parameters(), *model.buffers())
    for module in model.modules():
        for held in vars(module).values():
            inner = () if isinstance(held, Tensor) else getattr(held, "__dict__", {}).values()
            yield from (value for value in (held, *inner) if isinstance(value, Tensor))


def use_eager(modules: Iterable[nn.Module]) -> None:
    """Switch these modules of a clone to transformers' eager attention, which returns its weights.

    Written into the configs: ``set_attn_implementation`` of composite models refuses or changes more.
    """
    for config in configs_of(modules):
        set_attention_name(config, "eager")
