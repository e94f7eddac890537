"""VAF: raise the scores from text to audio, and lower those to the system prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .registry import register

__all__ = ["Vaf"]


@register
@dataclass(frozen=True)
class Vaf(Method):
    """VAF (the authors' code was read: ustc-hyin/ClearSight), on audio in place of the image.

    The system prompt is the group ``template`` here, which has all markup of the chat. The authors edit all
    text queries in layers 9-14 of 32.

    Attributes:
        up: factor on the scores of audio; 1 changes nothing.
        down: factor on those of the template; 1 changes nothing.
    """

    up: float = 1.15
    down: float = 0.95
    queries: str = field(default="text", kw_only=True)
    formula = "A up on audio, A down on the template"
    source = "ustc-hyin/ClearSight (code read)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        lowered = (x * self.down).where(context.columns("template"), x)
        return (x * self.up).where(context.columns("audio"), lowered)
