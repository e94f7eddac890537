"""AD-HH: take away the attention to text in heads that attend mostly to text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.protocol import SiteContext
from mata_interp.interventions.selection import select_heads

from .method import Method
from .registry import register

__all__ = ["AdHh"]


@register
@dataclass(frozen=True)
class AdHh(Method):
    """AD-HH (the authors' code was read: TianyunYoung/Hallucination-Attribution).

    The authors list the heads that contribute to hallucination, found by their attribution.

    Attributes:
        heads: the heads of each layer, one tuple per layer.
        threshold: mass of text, the query's own token included, from which a head is edited.
        strength: 1 sets the weights of text to 0; 0 changes nothing.
    """

    site = "weights"
    one_per_layer: ClassVar[bool] = True
    heads: tuple[tuple[int, ...], ...] = ()
    threshold: float = 0.4
    strength: float = 1.0
    formula = "p (1 - strength) on text where its mass >= threshold, not renormalised"
    source = "TianyunYoung/Hallucination-Attribution (code read)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.heads) != len(self.layers):
            raise InterventionError("heads has one tuple of heads for each layer.")

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The weights [B, H, Q, L] after the rule."""
        text = context.columns("text")
        chosen_heads = select_heads(self.heads[self.layers.index(context.layer)], x.shape[1], x.device)
        mass = x.masked_fill(~text, 0.0).sum(-1, keepdim=True)
        edited = (mass >= self.threshold) & chosen_heads[:, None, None] & text
        return torch.where(edited, x * (1 - self.strength), x)
