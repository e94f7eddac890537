"""HGAI: raise every head's scores by the mean absolute score over heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .registry import register

__all__ = ["Hgai"]


@register
@dataclass(frozen=True)
class Hgai(Method):
    """HGAI (the authors' code was read: XianguiKang/AdaIAT,
    ZhangqiJiang07/middle_layers_indicating_hallucinations), on audio in place of the image.

    The authors edit the last query in layers 5-17 of 32.

    Attributes:
        strength: a; 0 changes nothing.
        keys: the group whose scores are raised.
    """

    strength: float = 0.5
    keys: str = "audio"
    formula = "A + a mean over heads of |A|"
    source = "XianguiKang/AdaIAT (code read)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        raised = x + self.strength * x.abs().mean(1, keepdim=True)
        return raised.where(context.columns(self.keys), x)
