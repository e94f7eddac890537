"""Head masks: some attention heads are switched off, and AHAMask files are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.protocol import SiteContext
from mata_interp.interventions.selection import select_heads

from .method import Method
from .registry import register

__all__ = ["HeadMask"]


@register
@dataclass(frozen=True)
class HeadMask(Method):
    """Attention heads whose output is set to zero, for every token.

    AHAMask (arXiv 2509.01787; the authors' code was read: cantabile-kwok/SALMONN-AHAMask) trains such masks
    in place of an instruction; `from_ahamask` reads its files.

    Attributes:
        heads: the heads that are switched off in each layer, one tuple per layer.
        strength: 1 switches them off; 0 changes nothing.
    """

    site = "head_output"
    one_per_layer: ClassVar[bool] = True
    heads: tuple[tuple[int, ...], ...] = ()
    strength: float = 1.0
    queries: str = field(default="all", kw_only=True)
    formula = "o (1 - strength) in the listed heads"
    source = "arXiv 2509.01787, cantabile-kwok/SALMONN-AHAMask (code read)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.heads) != len(self.layers):
            raise InterventionError("heads has one tuple of heads for each layer.")

    @classmethod
    def from_ahamask(cls, path: str | Path, threshold: float = 0.5) -> HeadMask:
        """Read a mask file of AHAMask: a head is on where sigmoid(value) >= threshold.

        Args:
            path: a ``checkpoint.pth``, which holds the values [layers, heads] under model / tensor; it is
                read as weights alone, so that no code in it can run.
            threshold: a probability.

        Raises:
            InterventionError: the file is no such mask.
        """
        try:
            data: Any = torch.load(path, map_location="cpu", weights_only=True)
            values = data["model"]["tensor"].float()
        except (OSError, RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise InterventionError(f"{path} is no AHAMask file: {error}") from error
        values = values.squeeze()
        if values.dim() != 2:
            raise InterventionError(f"{path} holds {tuple(values.shape)} values, not [layers, heads].")
        off = values.sigmoid() < threshold
        layers = tuple(int(layer) for layer in off.any(1).nonzero().flatten())
        return cls(layers, tuple(tuple(off[layer].nonzero().flatten().tolist()) for layer in layers))

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The outputs of the heads [B, H, Q, Dv] after the rule."""
        chosen_heads = select_heads(self.heads[self.layers.index(context.layer)], x.shape[1], x.device)
        return (x * (1 - self.strength)).where(chosen_heads[:, None, None], x)
