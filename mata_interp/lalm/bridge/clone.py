"""A second body for the same weights, on which other instruments may do as they please.

Some instruments change the model they look at: transformer-lens puts modules of its own in the place of a
model's and switches it to eager attention. They get a twin, and the model stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import nn

__all__ = ["clone_sharing_weights", "settings_of", "use_eager"]


def clone_sharing_weights(model: Any) -> Any:
    """The same model made of other modules: weights and buffers are shared, settings and hooks are its own.

    Costs no memory for weights. What is computed with it is bit for bit what the model computes.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def settings_of(modules: Iterable[nn.Module]) -> list[Any]:
    """The configs that say which attention function these modules call, each once."""
    configs = [config for module in modules if (config := getattr(module, "config", None)) is not None]
    return list({id(config): config for config in configs}.values())


def use_eager(modules: Iterable[nn.Module]) -> None:
    """Switch these modules of a twin to transformers' plain attention, the one that shows its weights.

    Written into the configs: ``set_attn_implementation`` of composite models refuses or reaches too far.
    """
    for config in settings_of(modules):
        config._attn_implementation_internal = "eager"
