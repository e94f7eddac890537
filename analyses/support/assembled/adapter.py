"""The trained weights: the projector, and low-rank changes of the decoder's query and value matrices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen2AudioForConditionalGeneration

from mata_interp.errors import ModelError

__all__ = ["LowRankLinear", "adapted_linears", "add_low_rank", "apply_weights", "save_weights"]

ADAPTED = ("q_proj", "v_proj")
PROJECTOR = "multi_modal_projector.linear"
MAX_BYTES = 1_000_000


class LowRankLinear(nn.Module):
    """A frozen linear map plus the product of two narrow trained matrices (LoRA, arXiv 2106.09685).

    ``y = x W' + x A' B'`` with A at random and B zero in the beginning, so that nothing changes at first.

    Args:
        linear: the frozen map.
        rank: width of the narrow matrices.
        generator: source of A.
    """

    def __init__(self, linear: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(
            torch.randn(rank, linear.in_features, generator=generator) / linear.in_features**0.5
        )
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x @ self.down.T @ self.up.T


def adapted_linears(
    model: Qwen2AudioForConditionalGeneration,
) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield name, parent module and attribute of every matrix that low-rank changes apply to."""
    for index, layer in enumerate(model.model.language_model.layers):
        for attribute in ADAPTED:
            yield f"layers.{index}.{attribute}", layer.self_attn, attribute


def add_low_rank(model: Qwen2AudioForConditionalGeneration, rank: int, seed: int) -> list[nn.Parameter]:
    """Put `LowRankLinear` in the place of every adapted matrix; return the new parameters."""
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for _, parent, attribute in adapted_linears(model):
        adapted = LowRankLinear(getattr(parent, attribute), rank, generator)
        setattr(parent, attribute, adapted)
        parameters += [adapted.down, adapted.up]
    return parameters


def trained_weights(model: Qwen2AudioForConditionalGeneration) -> dict[str, Tensor]:
    """Return the projector and the low-rank matrices, if there are any: name -> tensor."""
    projector = model.model.multi_modal_projector.linear
    weights = {f"{PROJECTOR}.{name}": tensor.detach() for name, tensor in projector.state_dict().items()}
    for name, parent, attribute in adapted_linears(model):
        adapted = getattr(parent, attribute)
        if isinstance(adapted, LowRankLinear):
            weights |= {f"{name}.down": adapted.down.detach(), f"{name}.up": adapted.up.detach()}
    return weights


def save_weights(path: Path, model: Qwen2AudioForConditionalGeneration, notes: dict[str, str]) -> None:
    """Write what was trained as float16, at most 1 MB in all.

    Args:
        path: the safetensors file.
        model: the trained model.
        notes: metadata of the file.

    Raises:
        ModelError: more than 1 MB.
    """
    weights = {name: tensor.half().contiguous() for name, tensor in trained_weights(model).items()}
    size = sum(tensor.nbytes for tensor in weights.values())
    if size > MAX_BYTES:
        raise ModelError(
            f"The trained weights take {size} bytes as float16; at most {MAX_BYTES} are shipped."
        )
    save_file(weights, path, metadata=notes)


@torch.no_grad()
def apply_weights(model: Qwen2AudioForConditionalGeneration, path: Path) -> None:
    """Load the projector and add the low-rank changes to the decoder's matrices; the model stays a stock one.

    Args:
        model: the converted model.
        path: a file of `save_weights`.

    Raises:
        ModelError: a tensor of another shape than the model's, or one that belongs nowhere.
    """
    weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    projector = model.model.multi_modal_projector.linear
    for name, parameter in projector.named_parameters():
        _copy(parameter, weights.pop(f"{PROJECTOR}.{name}", None), f"{PROJECTOR}.{name}", path)
    for name, parent, attribute in adapted_linears(model):
        if f"{name}.up" in weights:
            matrix = getattr(parent, attribute).weight
            change = weights.pop(f"{name}.up") @ weights.pop(f"{name}.down")
            _copy(matrix, matrix + change, name, path)
    if weights:
        raise ModelError(
            f"{path} holds tensors that the model has no place for: {', '.join(sorted(weights))}."
        )


def _copy(parameter: nn.Parameter, value: Tensor | None, name: str, path: Path) -> None:
    if value is None or value.shape != parameter.shape:
        found = "is missing" if value is None else f"has shape {tuple(value.shape)}"
        raise ModelError(f"{path}: {name} {found}; the model needs {tuple(parameter.shape)}.")
    parameter.copy_(value)
