"""SpotLight: raise the share of a span where it is below a target."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .registry import register

__all__ = ["SpotLight"]


@register
@dataclass(frozen=True)
class SpotLight(Method):
    """SpotLight (the authors' code was read: AgentToolkit/agent-lifecycle-toolkit); all layers there.

    It undershoots: the share becomes y / (y + 1 - s), not y.

    Attributes:
        target: y, the share at which a row is left alone; 0 changes nothing.
        keys: the span.
    """

    target: float = 0.2
    keys: str = "audio"
    queries: str = field(default="all", kw_only=True)
    formula = "A + log(y / s) on the span where its share s < y"
    source = "AgentToolkit/agent-lifecycle-toolkit (code read)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        span = context.columns(self.keys)
        share = x.softmax(-1).masked_fill(~span, 0.0).sum(-1, keepdim=True)
        low = (share < self.target) & (share > 0)
        raised = x + torch.log(self.target / share.where(low, 1.0))
        return raised.where(span & low, x)
