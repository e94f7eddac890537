"""InstABoost: multiply the attention weights of a span, and renormalise."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .registry import register

__all__ = ["InstABoost"]


@register
@dataclass(frozen=True)
class InstABoost(Method):
    """InstABoost (the authors' code was read: BrachioLab/InstABoost); the authors edit all layers.

    Attributes:
        factor: M; 1 changes nothing.
        keys: the span.
    """

    site = "weights"
    factor: float = 3.0
    keys: str = "audio"
    queries: str = field(default="all", kw_only=True)
    formula = "p M on the span, renormalised"
    source = "BrachioLab/InstABoost (code read)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The weights [B, H, Q, L] after the rule."""
        span = context.columns(self.keys)
        mass = x.masked_fill(~span, 0.0).sum(-1, keepdim=True)
        # the sum of the new weights, written so that a factor of 1 divides by exactly 1
        return (x * self.factor).where(span, x) / (1 + (self.factor - 1) * mass)
