"""Sham attentions: what attention does is undone, while its shape stays."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mata_interp.errors import InterventionError, unknown_name
from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .registry import register

__all__ = ["SHAMS", "ShamAttention"]

SHAMS = ("random", "uniform", "reversed", "shuffled")


@register
@dataclass(frozen=True)
class ShamAttention(Method):
    """CausalMM's counterfactual attentions (the authors' code was read: The-Martyr/CausalMM).

    The weights on the visible keys of a group are replaced; their sum stays in every row, which is ours: the
    authors replace whole maps. Only the choice among these keys is taken away. What is drawn is a function of
    the seed, the layer, the head and the positions, not of the batch.

    Attributes:
        kind: ``"random"``, uniform draws; ``"uniform"``, all alike; ``"reversed"``, the largest weight minus
            each; ``"shuffled"``, the same weights in a random order.
        strength: part that is replaced; 0 changes nothing.
        keys: the group.
        seed: of what is drawn.
    """

    site = "weights"
    kind: str = "uniform"
    strength: float = 1.0
    keys: str = "audio"
    seed: int = 0
    queries: str = field(default="all", kw_only=True)
    formula = "(1 - s) p + s sham(p) on the group, its mass kept"
    source = "The-Martyr/CausalMM (code read)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in SHAMS:
            raise InterventionError(unknown_name("kind", self.kind, SHAMS))

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The weights [B, H, Q, L] after the rule."""
        if self.strength == 0:
            return x
        group = (context.columns(self.keys) & (x > 0)).expand_as(x)
        sham = self._sham(x, group, context)
        total, mass = (each.masked_fill(~group, 0.0).sum(-1, keepdim=True) for each in (sham, x))
        sham = sham * mass / total.clamp(min=1e-12)
        mixed = (1 - self.strength) * x + self.strength * sham
        return mixed.where(group & (total > 0), x)  # a single key has no other row of the same mass

    def _sham(self, x: Tensor, group: Tensor, context: SiteContext) -> Tensor:
        if self.kind == "uniform":
            return torch.ones_like(x)
        if self.kind == "random":
            return self._draws(x, context) + 1e-6
        if self.kind == "reversed":
            return x.masked_fill(~group, 0.0).amax(-1, keepdim=True) - x
        # weights of the group from the smallest on, given to its keys from the largest draw on
        ascending = x.masked_fill(~group, torch.inf).sort(-1).values
        draws = self._draws(x, context).masked_fill(~group, -torch.inf)
        rank = draws.argsort(dim=-1, descending=True, stable=True).argsort(-1)
        return ascending.gather(-1, rank).masked_fill(~group, 0.0)

    def _draws(self, x: Tensor, context: SiteContext) -> Tensor:
        """Numbers from 0 to 1 for each key, by a hash of seed, layer, head and places.

        Places are counted from the prompt's end, so that padding in front changes nothing.
        """
        heads = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        query = (context.positions[0] - context.width)[None, None, :, None] + 2**20
        key = (context.key_positions[0] - context.width)[None, None, None, :] + 2**20
        n = 7919 * self.seed + 104729 * context.layer + 1299709 * heads + 15485863 * query + 32452843 * key
        for _ in range(3):  # whole numbers give the same draws on every device
            n = n % 2**31 * 1103515245 + 12345
            n = n ^ (n >> 16)
        return (n % 2**24).to(x.dtype).expand_as(x) / 2**24
