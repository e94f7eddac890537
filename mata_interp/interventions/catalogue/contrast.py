"""Contrastive decoding against a named negative: AAD, ACD and AMTI."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mata_interp.interventions.protocol import SiteContext

from .negatives import Negative, drop_improbable
from .registry import register

__all__ = ["Aad", "Acd", "Amti"]


@register
@dataclass(frozen=True)
class Aad(Negative):
    """Audio-aware decoding, as described by a digest of arXiv 2506.07233; the code read is another's:
    nervjack2/LALM-Contrastive-Decoding-Error-Profiles.

    The paper blanks the audio with zeros (``"silent"``), that code leaves it out. ``"reversed"`` is the
    negative of arXiv 2607.00247, as described by its abstract.

    Attributes:
        strength: a; 0 changes nothing. Published: 0.5 and 1.
        negative, clip, seed: what the extra pass is given; see NEGATIVES.
    """

    strength: float = 1.0
    negative: str = "omitted"
    clip: str | None = None
    seed: int = 0
    formula = "(1 + a) l - a l_negative"
    source = "arXiv 2506.07233 (digest); nervjack2/LALM-Contrastive-Decoding-Error-Profiles (code read)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The logits [B, Q, V] after the contrast."""
        return (1 + self.strength) * x - self.strength * self.negative_logits(context)


@register
@dataclass(frozen=True)
class Acd(Negative):
    """Audio contrastive decoding (code read: nervjack2/LALM-Contrastive-Decoding-Error-Profiles).

    Attributes:
        strength: a; 0 changes nothing.
        cutoff: b; tokens less probable than this part of the most probable one are dropped; 0 drops none.
        negative, clip, seed: what the extra pass is given; see NEGATIVES.
    """

    strength: float = 1.0
    cutoff: float = 0.1
    negative: str = "noised"
    clip: str | None = None
    seed: int = 0
    formula = "(1 + a) l - a l_negative, where l >= max + log b"
    source = "nervjack2/LALM-Contrastive-Decoding-Error-Profiles (code read)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The logits [B, Q, V] after the contrast."""
        if self.strength == 0:
            return x
        contrasted = (1 + self.strength) * x - self.strength * self.negative_logits(context)
        return drop_improbable(contrasted, x, self.cutoff)


@register
@dataclass(frozen=True)
class Amti(Negative):
    """AMTI: guidance against the instruction to ignore the audio, where the model is unsure (code read:
    nervjack2/LALM-Contrastive-Decoding-Error-Profiles).

    Attributes:
        weight: w; 1 changes nothing.
        bits: t, the entropy of the next token, in bits, above which guidance is on.
        negative, clip, seed: what the extra pass is given; see NEGATIVES.
    """

    weight: float = 2.0
    bits: float = 1.0
    negative: str = "ignored"
    clip: str | None = None
    seed: int = 0
    formula = "w l - (w - 1) l_negative where the entropy > t"
    source = "nervjack2/LALM-Contrastive-Decoding-Error-Profiles (code read)"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The logits [B, Q, V] after the contrast."""
        entropy = torch.special.entr(x.softmax(-1)).sum(-1, keepdim=True) / math.log(2)
        guided = self.weight * x - (self.weight - 1) * self.negative_logits(context)
        return guided.where(entropy > self.bits, x)
