"""SEKA: keys of a span are moved within learned subspaces, before rotary positions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.protocol import SiteContext

from .arrays import Array
from .method import Method
from .registry import register

__all__ = ["Seka"]


@register
@dataclass(frozen=True)
class Seka(Method):
    """SEKA (the authors' code was read: waylonli/SEKA), which works with any attention kernel.

    The authors take the projections from the SVD of cross-covariances of keys, and edit the last 10 layers.

    Attributes:
        raising: P+, an Array [n, Hkv, D, D] for n layers.
        lowering: P-, alike.
        up: g+; with ``down`` 0, nothing changes.
        down: g-.
        keys: the span.
    """

    site = "keys"
    one_per_layer: ClassVar[bool] = True
    raising: Array | None = None
    lowering: Array | None = None
    up: float = 0.8
    down: float = 0.2
    keys: str = "audio"
    queries: str = field(default="all", kw_only=True)
    phase: str = field(default="prefill", kw_only=True)
    formula = "k + g+ P+ k + g- P- k on the span, before rotary positions"
    source = "waylonli/SEKA (code read)"

    def __post_init__(self) -> None:
        super().__post_init__()
        for array in (self.raising, self.lowering):
            if array is None or array.tensor.dim() != 4 or len(array.tensor) != len(self.layers):
                raise InterventionError("raising and lowering are Arrays [layers, key heads, D, D].")

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The keys [B, Hkv, Q, D] after the rule."""
        assert self.raising is not None
        assert self.lowering is not None
        at = self.layers.index(context.layer)
        raised = torch.einsum("bhqd,hed->bhqe", x, self.raising.on(x)[at])
        lowered = torch.einsum("bhqd,hed->bhqe", x, self.lowering.on(x)[at])
        span = context.rows(self.keys)[:, None, :, None]
        return (x + self.up * raised + self.down * lowered).where(span, x)
