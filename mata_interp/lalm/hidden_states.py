"""Hidden states of chosen layers, from a plain forward over a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mata_interp.errors import ModelError

from .discovery.hooks import hidden_states_out, temporary_hooks
from .discovery.structure import ModelStructure
from .prompting.prompts import Prompt
from .scoring import last_position_only

__all__ = ["read_hidden_states"]


def read_hidden_states(
    model: Any, structure: ModelStructure, prompt: Prompt, layers: Sequence[int], last: bool
) -> Tensor:
    """The outputs of decoder layers; the arguments and errors are those of `LALM.hidden_states`."""
    kept: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def after(args: tuple, kwargs: dict, output: Any) -> None:
            states = hidden_states_out(output)
            kept[layer] = (states[:, -1:] if last else states).float()

        return after

    for layer in layers:
        if not 0 <= layer < structure.num_layers:
            raise ModelError(f"No layer {layer}: the model has layers 0-{structure.num_layers - 1}.")
    hooks = [(structure.blocks[layer], keep(layer)) for layer in layers]
    with last_position_only(model), temporary_hooks(after=hooks):
        model(**prompt.inputs)
    device = kept[layers[0]].device if layers else torch.device("cpu")
    return torch.stack([kept[layer].to(device) for layer in layers], 1)
