"""Value scaling: what audio tokens hand over is multiplied, while attention to them stays."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .registry import register

__all__ = ["ValueScaling"]


@register
@dataclass(frozen=True)
class ValueScaling(Method):
    """Multiply the values of a group of tokens: our counterpart of scaling the scores.

    Attributes:
        factor: 1 changes nothing, 0 takes away what the tokens hand over.
        keys: the group.
    """

    site = "values"
    factor: float = 1.5
    keys: str = "audio"
    queries: str = field(default="all", kw_only=True)
    phase: str = field(default="prefill", kw_only=True)
    formula = "v factor on the group"
    source = "this package"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The values [B, Hkv, Q, D] after the rule."""
        return (x * self.factor).where(context.rows(self.keys)[:, None, :, None], x)
