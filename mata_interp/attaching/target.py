"""The transformers model inside of what the user passes, and the layers that are edited."""

from __future__ import annotations

from typing import Any

from torch import nn

from mata_interp.compat import uncompiled
from mata_interp.errors import ArgumentError, ModelError
from mata_interp.interventions import in_order
from mata_interp.interventions.protocol import ATTENTION_SITES
from mata_interp.lalm import ModelStructure

__all__ = ["attention_layers", "inner_model"]


def inner_model(model: Any) -> Any:
    """The transformers model inside wrappers of PEFT or torch.compile.

    Raises:
        ArgumentError: it is not a torch module.
        ModelError: its calls cannot be intercepted, or it is in training mode.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"{type(model).__name__} is not a torch module: pass a transformers model.")
    if isinstance(model, nn.DataParallel):
        raise ModelError("A DataParallel model runs replicas of its modules: attach to its .module.")
    if any(module.training for module in model.modules()):
        raise ModelError(f"{type(model).__name__} is in training mode: call model.eval() first.")
    model = uncompiled(model)
    if not hasattr(model, "get_base_model"):
        return model
    ModelStructure.from_model(model)  # which refuses adapters that put vectors in front of prompts
    return model.get_base_model()


def attention_layers(part: Any) -> tuple[int, ...]:
    """The layers whose attention calls a part edits, in its extra pass as well."""
    inside = in_order(getattr(part, "negative_parts", ()))
    edited = part.layers if part.site in ATTENTION_SITES else ()
    return (*edited, *(layer for each in inside for layer in each.layers))
