"""Scaling: multiply the scores of audio by a factor, fixed or chosen by the model's confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mata_interp.interventions.attention_edit import AttentionEdit
from mata_interp.interventions.protocol import SiteContext

from .method import Composite, Method
from .registry import register

__all__ = ["GatedScaling", "Scaling"]


@register
@dataclass(frozen=True)
class Scaling(Composite):
    """Scaling of the scores of audio, as described by a digest of arXiv 2606.17417 (its code was not seen).

    The digest names one layer: 20 of Audio Flamingo 3 with factor 2.0, 9 of DeSTA2.5 with 0.2.

    Attributes:
        factor: above 1 sharpens, below 1 smooths; 1 changes nothing.
        queries, keys: those of `AttentionEdit`.
    """

    factor: float = 2.0
    queries: str = "last"
    keys: str = "audio"
    formula = "A w"
    source = "arXiv 2606.17417 (digest)"

    @property
    def parts(self) -> tuple[Any, ...]:
        """One attention edit."""
        alpha = self.factor - 1
        return (AttentionEdit(alpha, self.layers, "mul", keys=self.keys, queries=self.queries),)


@register
@dataclass(frozen=True)
class GatedScaling(Method):
    """Scaling as AdaptVis has it (the authors' code was read: shiqichen17/AdaptVis), on audio.

    A first pass without an intervention gives the probability of the most probable first token, which picks
    the factor of the whole answer. The defaults are those of the authors' run script; others stand in their
    paper, by data set.

    Attributes:
        sure: factor where that probability is at least ``threshold``; 1 changes nothing.
        unsure: factor where it is lower.
        threshold: a probability.
    """

    sure: float = 1.5
    unsure: float = 0.5
    threshold: float = 0.4
    formula = "A w, w = sure where p_max >= threshold, else unsure"
    source = "shiqichen17/AdaptVis (code read)"

    def measure(self, lalm: Any, prompt: Any) -> Mapping[str, Tensor]:
        """The probability of the most probable first token: [B]."""
        return {"p_max": lalm.logits(prompt).float().softmax(-1).amax(-1)}

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The scores [B, H, Q, L] after the rule."""
        p = context.measured["p_max"].to(x.device)[:, None, None, None]
        factor = torch.where(p >= self.threshold, self.sure, self.unsure)
        return (x * factor).where(context.columns("audio"), x)
