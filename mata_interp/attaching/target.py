"""What is attached to: the transformers model inside of what the user passes, and which of its layers."""

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
    """The transformers model in what PEFT or torch.compile put around it.

    Raises:
        ArgumentError: it is no model.
        ModelError: its calls cannot be intercepted, or it is in training mode.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"{type(model).__name__} is no model of transformers.")
    if isinstance(model, nn.DataParallel):
        raise ModelError("A DataParallel model runs in copies of its parts: attach to its .module.")
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
    own = part.layers if part.site in ATTENTION_SITES else ()
    return (*own, *(layer for each in inside for layer in each.layers))
