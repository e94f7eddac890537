"""Classifier-free guidance against a negative prompt, in log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .negatives import Negative, drop_improbable
from .registry import register

__all__ = ["Guidance"]


@register
@dataclass(frozen=True)
class Guidance(Negative):
    """Guidance as PAI has it (the authors' code was read: LALBJ/PAI).

    Attributes:
        guidance: g; 1 changes nothing.
        cutoff: tokens less probable than this part of the most probable one are dropped; 0 drops none.
        negative, clip, seed: what the extra pass is given; see `Negative`.
    """

    guidance: float = 1.1
    cutoff: float = 0.1
    negative: str = "omitted"
    clip: str | None = None
    seed: int = 0
    formula = "g (log p - log p_negative) + log p_negative, where p >= cutoff max p"
    source = "LALBJ/PAI (code read)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The logits [B, Q, V] after guidance."""
        if self.guidance == 1:
            return x
        with_audio, without = x.log_softmax(-1), self.negative_logits(context).log_softmax(-1)
        guided = self.guidance * (with_audio - without) + without
        return drop_improbable(guided, x, self.cutoff)
