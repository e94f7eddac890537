"""One real method per site of the intervention protocol, as small classes.

The formulas are facts from the cited papers and repositories; the code is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mata_interp.interventions import SiteContext
from mata_interp.interventions.selection import TEXT


def text_among(groups: Any) -> Tensor:
    """The union of the text groups."""
    return torch.stack([groups[name] for name in TEXT]).any(0)


@dataclass(frozen=True)
class InstABoost:
    """The span's attention weights times ``factor``, renormalised (BrachioLab/InstABoost)."""

    layers: tuple[int, ...]
    factor: float = 3.0
    span: str = "audio"
    site = "weights"
    queries, phase = "all", "both"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        span = context.keys[self.span][:, None, None]
        mass = x.masked_fill(~span, 0.0).sum(-1, keepdim=True)
        # the sum of the new weights, written so that a factor of 1 divides by exactly 1
        return torch.where(span, x * self.factor, x) / (1 + (self.factor - 1) * mass)


@dataclass(frozen=True, eq=False)
class Seka:
    """Keys of the span before rotary positions: k + up P+ k + down P- k (waylonli/SEKA).

    ``raising`` and ``lowering`` hold a projection [Hkv, D, D] per layer.
    """

    raising: dict[int, Tensor]
    lowering: dict[int, Tensor]
    up: float = 0.8
    down: float = 0.2
    span: str = "audio"
    site = "keys"
    queries, phase = "all", "prefill"

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.raising)

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        raised = torch.einsum("bhqd,hde->bhqe", x, self.raising[context.layer].transpose(1, 2))
        lowered = torch.einsum("bhqd,hde->bhqe", x, self.lowering[context.layer].transpose(1, 2))
        span = context.tokens[self.span][:, None, :, None]
        return torch.where(span, x + self.up * raised + self.down * lowered, x)


@dataclass(frozen=True)
class AdHh:
    """In listed heads whose last row has text mass >= ``threshold``, text weights become 0, without
    renormalisation (TianyunYoung/Hallucination-Attribution)."""

    heads: tuple[tuple[int, tuple[int, ...]], ...]
    threshold: float = 0.4
    strength: float = 1.0  # 0 leaves the heads as they are
    site = "head_output"
    queries, phase = "last", "both"

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(layer for layer, _ in self.heads)

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        assert context.weights is not None
        text = context.weights.masked_fill(~text_among(context.keys)[:, None, None], 0.0)
        listed = torch.zeros(x.shape[1], dtype=torch.bool)
        listed[list(dict(self.heads)[context.layer])] = True
        adaptive = (text.sum(-1) >= self.threshold) & listed[:, None]  # (B, H, Q)
        return torch.where(adaptive[..., None], x - self.strength * context.mix(text), x)


@dataclass(frozen=True, eq=False)
class Vista:
    """The residual stream is turned towards a direction, its norm kept: normalise(x + strength v) |x|
    (LzVv123456/VISTA)."""

    directions: dict[int, Tensor] = field(default_factory=dict)
    strength: float = 0.17
    site = "residual"
    queries, phase = "last", "both"

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.directions)

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        moved = x + self.strength * self.directions[context.layer]
        norms = x.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True)
        return moved * norms


@dataclass(frozen=True)
class Aad:
    """Audio-aware decoding: (1 + a) l_audio - a l_without (arXiv 2506.07233); the negative prompt leaves the
    audio out."""

    strength: float = 1.0
    site = "logits"
    layers: tuple[int, ...] = ()
    queries, phase = "last", "both"

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        assert context.negative is not None
        return (1 + self.strength) * x - self.strength * context.negative

    def negative_prompt(self, lalm: Any, prompt: Any) -> Any:
        return lalm.prompt(prompt.items, audio=None)
