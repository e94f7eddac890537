"""AVCD: contrast with a pass in which the most attended tokens of the less attended modality are hidden."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .method import Composite, Method
from .negatives import SamePrompt
from .registry import register

__all__ = ["Avcd", "AvcdContrast", "HideSalient"]


@register
@dataclass(frozen=True)
class HideSalient(Method):
    """Take away the weights of the most attended tokens of the modality, audio or text, with less attention.

    Attention to a token is the mean over heads in the query's own row; the modality with the smaller sum is
    the less attended one. Its tokens above their median are hidden, and the rest is renormalised.

    Attributes:
        strength: part of the weight that is taken away; 0 changes nothing.
    """

    site = "weights"
    strength: float = 1.0
    queries: str = field(default="all", kw_only=True)
    formula = "p (1 - strength) above the median of the less attended modality, renormalised"
    source = "kaistmm/AVCD (code read; columns are hidden as in the paper, the code hides rows)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The weights [B, H, Q, L] after the rule."""
        if self.strength == 0:
            return x
        mean = x.mean(1, keepdim=True)  # (B, 1, Q, L)
        own_column = context.key_positions[:, None, None, :] == context.positions[:, None, :, None]
        visible = mean > 0
        audio, text = context.columns("audio") & visible, context.columns("text") & visible & ~own_column
        sums = [(mean * group).sum(-1, keepdim=True) for group in (audio, text)]
        less = torch.where(sums[0] <= sums[1], audio, text)
        median = mean.masked_fill(~less, torch.nan).nanmedian(-1, keepdim=True).values
        edited = x * torch.where(less & (mean > median), 1 - self.strength, 1.0)
        return edited / edited.sum(-1, keepdim=True).clamp(min=1e-12)


@register
@dataclass(frozen=True)
class AvcdContrast(SamePrompt):
    """The logits of AVCD: contrast with a pass over the same prompt under `HideSalient`.

    Attributes:
        layers_of_path: the layers in which tokens are hidden.
        strength: a; 0 changes nothing.
        entropy: the entropy of the next token, in nats, above which there is a contrast.
    """

    layers_of_path: tuple[int, ...]
    strength: float = 0.5
    entropy: float = 0.6
    formula = "(1 + a) l - a l' where the entropy > t"
    source = "kaistmm/AVCD (code read)"

    @property
    def negative_parts(self) -> tuple[Any, ...]:
        """What is hidden in the other pass."""
        return (HideSalient(self.layers_of_path),)

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The logits [B, Q, V] after the contrast."""
        uncertain = torch.special.entr(x.softmax(-1)).sum(-1, keepdim=True) > self.entropy
        contrasted = (1 + self.strength) * x - self.strength * self.negative_logits(context)
        return contrasted.where(uncertain, x)


@register
@dataclass(frozen=True)
class Avcd(Composite):
    """AVCD (arXiv 2505.20862; the authors' code was read: kaistmm/AVCD), for audio and text.

    The authors contrast three modalities with several passes, and edit layers below 27 of 28. Their paper
    hides columns of the attention matrix (keys), their code multiplies its rows; this hides keys.

    Attributes:
        strength: a; 0 changes nothing.
        entropy: the entropy of the next token, in nats, above which there is a contrast.
    """

    strength: float = 0.5
    entropy: float = 0.6
    formula = "(1 + a) l - a l', l' without the most attended tokens of the less attended modality"
    source = "arXiv 2505.20862, kaistmm/AVCD (code read; it differs from the paper)"

    @property
    def parts(self) -> tuple[Any, ...]:
        """The contrast."""
        return (AvcdContrast(self.layers, self.strength, self.entropy),)
