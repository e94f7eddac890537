"""The trained weights: the projector, and low-rank changes of attention matrices of the decoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen2AudioForConditionalGeneration

from mata_interp.errors import ModelError

__all__ = [
    "FIRST_ADAPTED",
    "LowRankLinear",
    "adapted_linears",
    "add_low_rank",
    "apply_low_rank",
    "apply_weights",
    "save_low_rank",
    "save_weights",
]

FIRST_ADAPTED = 10
"""The first decoder layer that is changed. No gradient passes through the layers before it, which saves a
sixth of the time of a step."""

ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj")
PROJECTOR = "multi_modal_projector.linear"
SCALE = ".scale"
MAX_BYTES = 1_000_000

Place = tuple[str, nn.Module, str]  # name in the file, parent module, attribute


class LowRankLinear(nn.Module):
    """A frozen linear map plus the product of two narrow trained matrices (LoRA, arXiv 2106.09685).

    ``y = x W' + x A' B'``.

    Args:
        linear: the frozen map.
        down: A, [rank, inputs].
        up: B, [outputs, rank].
    """

    def __init__(self, linear: nn.Linear, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.linear, self.down, self.up = linear, nn.Parameter(down), nn.Parameter(up)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x @ self.down.T @ self.up.T


def adapted_linears(model: Qwen2AudioForConditionalGeneration, first: int = 0) -> Iterator[Place]:
    """Yield the matrices that low-rank changes may apply to, from layer ``first`` on."""
    for index, layer in list(enumerate(model.model.language_model.layers))[first:]:
        for attribute in ADAPTED:
            yield f"layers.{index}.{attribute}", layer.self_attn, attribute


def add_low_rank(
    model: Qwen2AudioForConditionalGeneration, rank: int, seed: int, first: int | None = None
) -> list[nn.Parameter]:
    """Put `LowRankLinear` in the place of every adapted matrix; return the new parameters.

    A is random and B zero, so that nothing changes at first.

    Args:
        model: the assembled model.
        rank: of the changes.
        seed: of their random halves.
        first: the first layer that is changed [default: `FIRST_ADAPTED`].
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for _, parent, attribute in adapted_linears(model, FIRST_ADAPTED if first is None else first):
        linear = getattr(parent, attribute)
        down = torch.randn(rank, linear.in_features, generator=generator) / linear.in_features**0.5
        adapted = LowRankLinear(linear, down, torch.zeros(linear.out_features, rank))
        setattr(parent, attribute, adapted)
        parameters += [adapted.down, adapted.up]
    return parameters


def trained_weights(model: Qwen2AudioForConditionalGeneration) -> dict[str, Tensor]:
    """Return the projector and the low-rank matrices, if there are any: name -> tensor."""
    projector = model.model.multi_modal_projector.linear
    weights = {f"{PROJECTOR}.{name}": tensor.detach() for name, tensor in projector.state_dict().items()}
    return weights | _low_rank_weights(model)


def _low_rank_weights(model: Qwen2AudioForConditionalGeneration) -> dict[str, Tensor]:
    weights = {}
    for name, parent, attribute in adapted_linears(model):
        adapted = getattr(parent, attribute)
        if isinstance(adapted, LowRankLinear):
            weights |= {f"{name}.down": adapted.down.detach(), f"{name}.up": adapted.up.detach()}
    return weights


def save_weights(path: Path, model: Qwen2AudioForConditionalGeneration, notes: dict[str, str]) -> None:
    """Write what was trained, at most 1 MB in all: the projector's matrix in 8 bits, the others as float16.

    Args:
        path: the safetensors file.
        model: the trained model.
        notes: metadata of the file.

    Raises:
        ModelError: more than 1 MB.
    """
    matrix = model.model.multi_modal_projector.linear.weight.detach()
    _save(path, trained_weights(model), notes, _in_8_bits(f"{PROJECTOR}.weight", matrix))


def save_low_rank(path: Path, model: Qwen2AudioForConditionalGeneration, notes: dict[str, str]) -> None:
    """Write the low-rank changes alone, as `save_weights` does."""
    _save(path, _low_rank_weights(model), notes, {})


def _save(path: Path, weights: dict[str, Tensor], notes: dict[str, str], packed: dict[str, Tensor]) -> None:
    """Write weights as float16; ``packed`` ones as they are, in the place of those of the same name."""
    rounded = {name: tensor.half().contiguous() for name, tensor in weights.items()}
    save_file(rounded | packed, path, metadata=notes)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ModelError(f"The trained weights take {size} bytes; at most {MAX_BYTES} are shipped.")


def _in_8_bits(name: str, matrix: Tensor) -> dict[str, Tensor]:
    """A matrix as int8 with one float16 scale per row."""
    scale = (matrix.abs().amax(1, keepdim=True) / 127).half()
    whole = (matrix / scale.float().clamp_min(1e-8)).round().clamp(-127, 127).to(torch.int8)
    return {name: whole, name + SCALE: scale}


def _load(path: Path) -> dict[str, Tensor]:
    """The file's tensors in float32, scales applied."""
    stored = load_file(path)
    scales = {name.removesuffix(SCALE): stored.pop(name) for name in list(stored) if name.endswith(SCALE)}
    return {
        name: t.float() * scales[name].float() if name in scales else t.float() for name, t in stored.items()
    }


@torch.no_grad()
def apply_weights(model: Qwen2AudioForConditionalGeneration, path: Path) -> None:
    """Load the projector and add the low-rank changes to the decoder's matrices; the model stays a stock one.

    Args:
        model: the converted model.
        path: a file of `save_weights`.

    Raises:
        ModelError: a tensor of another shape than the model's, or one that belongs nowhere.
    """
    weights = _load(path)
    projector = model.model.multi_modal_projector.linear
    for name, parameter in projector.named_parameters():
        full = f"{PROJECTOR}.{name}"
        parameter.copy_(_fitting(weights.pop(full, None), parameter, full, path))
    _add_low_rank_changes(model, weights, path)


@torch.no_grad()
def apply_low_rank(model: Qwen2AudioForConditionalGeneration, path: Path) -> None:
    """Add the low-rank changes of a file of `save_low_rank`, as `apply_weights` does."""
    _add_low_rank_changes(model, _load(path), path)


def _add_low_rank_changes(
    model: Qwen2AudioForConditionalGeneration, weights: dict[str, Tensor], path: Path
) -> None:
    for name, parent, attribute in adapted_linears(model):
        if f"{name}.up" not in weights:
            continue
        down, up = weights.pop(f"{name}.down"), weights.pop(f"{name}.up")
        linear = getattr(parent, attribute)
        linear.weight += _fitting(up @ down, linear.weight, name, path)
    if weights:
        raise ModelError(
            f"{path} holds tensors that the model has no place for: {', '.join(sorted(weights))}."
        )


def _fitting(value: Tensor | None, parameter: Tensor, name: str, path: Path) -> Tensor:
    """``value``, if it has the parameter's shape."""
    if value is None or value.shape != parameter.shape:
        problem = "is missing" if value is None else f"has shape {tuple(value.shape)}"
        raise ModelError(f"{path}: {name} {problem}; the model needs {tuple(parameter.shape)}.")
    return value
