"""CAAC: scale the scores of audio while the model is unsure of its tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .registry import register

__all__ = ["Caac"]


@register
@dataclass(frozen=True)
class Caac(Method):
    """CAAC's confidence-aware scaling (the authors' code was read: mehrdadfazli/CAAC), on audio.

    p is the largest probability at the step before. The prompt is read without it, as in the code, whose
    factor is 1 until a first token is chosen. The authors edit all layers; their calibration of image tokens
    is not here.

    Attributes:
        strength: b; 0 changes nothing.
        threshold: p above which nothing changes.
    """

    strength: float = 0.5
    threshold: float = 0.25
    queries: str = field(default="all", kw_only=True)
    phase: str = field(default="decode", kw_only=True)
    formula = "A (1 + b (1 - p)) where p <= threshold"
    source = "mehrdadfazli/CAAC (code read)"

    @property
    def needs_confidence(self) -> bool:
        """Whether tokens have to be read one by one."""
        return self.strength != 0

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        if context.confidence is None:
            return x
        p = context.confidence[:, None, :, None]
        factor = torch.where(p <= self.threshold, 1 + self.strength * (1 - p), 1.0)
        return (x * factor).where(context.columns("audio"), x)
