"""Hidden states and head outputs of chosen layers, from a plain forward over a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mata_interp.attention import AttentionCall
from mata_interp.errors import ModelError

from .calls.attention_calls import attention_calls
from .discovery.hooks import hidden_states_out, temporary_hooks
from .discovery.output_head import last_position_only
from .discovery.structure import ModelStructure
from .prompting.prompts import Prompt

__all__ = ["read_head_outputs", "read_hidden_states"]


def read_hidden_states(
    model: Any, structure: ModelStructure, prompt: Prompt, layers: Sequence[int], last: int
) -> Tensor:
    """The outputs of decoder layers; the arguments and errors are those of `LALM.hidden_states`."""
    by_layer: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def after(args: tuple, kwargs: dict, output: Any) -> None:
            states = hidden_states_out(output)
            by_layer[layer] = (states[:, -int(last) :] if last else states).float()

        return after

    for layer in layers:
        if not 0 <= layer < structure.num_layers:
            raise ModelError(f"No layer {layer}: the model has layers 0-{structure.num_layers - 1}.")
    hooks = [(structure.blocks[layer], keep(layer)) for layer in layers]
    with last_position_only(model), temporary_hooks(after=hooks):
        model(**prompt.inputs)
    device = by_layer[layers[0]].device if layers else torch.device("cpu")
    return torch.stack([by_layer[layer].to(device) for layer in layers], 1)


def read_head_outputs(
    model: Any, structure: ModelStructure, prompt: Prompt, layers: Sequence[int], last: int
) -> Tensor:
    """The outputs of attention heads; the arguments and errors are those of `LALM.head_outputs`."""
    by_layer: dict[int, Tensor] = {}

    def keep(layer: int, call: AttentionCall, total: int) -> None:
        rows = slice(call.query.shape[2] - last, call.query.shape[2])
        weights = call.scores(rows).softmax(-1)
        by_layer[layer] = call.mix(weights.nan_to_num())  # a token of padding sees nothing

    for layer in layers:
        if layer not in structure.attention:
            raise ModelError(f"No attention in layer {layer}: the model has it in {sorted(structure.heads)}.")
    with last_position_only(model), attention_calls(structure, layers, keep, "direct") as run:
        run(lambda: model(**prompt.inputs))
    device = by_layer[layers[0]].device if layers else torch.device("cpu")
    return torch.stack([by_layer[layer].to(device) for layer in layers], 1)
