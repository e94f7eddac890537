"""PASTA: lower the scores of the prompt outside a span, in profiled heads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.protocol import SiteContext
from mata_interp.interventions.selection import select_heads

from .method import Method
from .registry import register

__all__ = ["Pasta"]


@register
@dataclass(frozen=True)
class Pasta(Method):
    """PASTA (the authors' code was read: QingruZhang/PASTA).

    The authors steer all queries in heads that they profile for each model.

    Attributes:
        heads: the heads of each layer, one tuple per layer; none at all: all heads.
        scale: a, above 0; 1 changes nothing.
        keys: the span; all other tokens of the prompt are lowered.
    """

    one_per_layer: ClassVar[bool] = True
    heads: tuple[tuple[int, ...], ...] = ()
    scale: float = 0.01
    keys: str = "audio"
    queries: str = field(default="all", kw_only=True)
    formula = "A + log a outside the span"
    source = "QingruZhang/PASTA (code read)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale <= 0 or (self.heads and len(self.heads) != len(self.layers)):
            raise InterventionError("PASTA needs a scale above 0, and one tuple of heads for each layer.")

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        outside = context.columns("prompt") & ~context.columns(self.keys)
        chosen = self.heads[self.layers.index(context.layer)] if self.heads else None
        heads = select_heads(chosen, x.shape[1], x.device)[:, None, None]
        return (x + math.log(self.scale)).where(outside & heads, x)
