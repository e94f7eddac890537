"""Prompts where and as the model takes them."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from typing import Any

from torch import Tensor

from .prompts import Prompt

__all__ = ["placed"]


def placed(model: Any, prompt: Prompt) -> Prompt:
    """The prompt on the model's device, its features in the model's dtype.

    Where the forward takes ``sample``, as VibeVoice's does, which then draws noise and adds it to the sound,
    it is False unless the inputs say otherwise: the same prompt is then the same prompt twice.
    """
    prompt = prompt.to(model.device)
    inputs: dict[str, Any] = {
        name: x.to(model.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
        for name, x in prompt.inputs.items()
    }
    noisy = signature(model.forward).parameters.get("sample")
    if noisy is not None and noisy.default is True:
        inputs.setdefault("sample", False)
    return replace(prompt, inputs=inputs)
