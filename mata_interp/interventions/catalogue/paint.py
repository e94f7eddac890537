"""PAINT: raise the most attended audio tokens more than the least attended ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .registry import register

__all__ = ["Paint"]


@register
@dataclass(frozen=True)
class Paint(Method):
    """PAINT's rule (arXiv 2501.12206; the authors' code was read: hasanar1f/PAINT), on audio.

    The authors rank the image tokens by the attention of the vision encoder. Here a query ranks the audio
    tokens by its own scores, averaged over heads: audio encoders have no class token. The authors edit the
    last query in layers 2-32 of 32.

    Attributes:
        most: a of the most attended tokens; 0 changes nothing.
        least: a of the others.
        share: part of the audio tokens, above 0 and at most 1, that count as the most attended.
    """

    most: float = 0.7
    least: float = 0.3
    share: float = 0.5
    formula = "A + a |A|, a = most on the most attended share of audio, least on the rest"
    source = "hasanar1f/PAINT (code read; ranked otherwise here)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        audio = context.columns("audio") & (x[:, :1] > -torch.inf)
        mean = x.mean(1, keepdim=True).where(audio, -torch.inf)
        rank = mean.argsort(dim=-1, descending=True, stable=True).argsort(-1)  # of each token, 0 the most
        top = rank < (self.share * audio.sum(-1, keepdim=True)).ceil()
        strength = torch.where(top, self.most, self.least)
        return (x + strength * x.abs()).where(audio, x)
