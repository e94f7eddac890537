"""Steering of the residual stream towards what the audio adds, measured for each prompt or given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.protocol import SiteContext

from .arrays import Array
from .method import Method
from .negatives import negative_prompt
from .registry import register

__all__ = ["Steering"]


@register
@dataclass(frozen=True)
class Steering(Method):
    """VISTA, VTI and AVS: one rule with different directions and strengths.

    VISTA and VTI (the authors' code was read: LzVv123456/VISTA, shengliu66/VTI); AVS as described by a digest
    of arXiv 2510.12851. v is the output of the layer at the last token of the prompt, with its audio minus
    with the negative, for each prompt; or a direction that was found elsewhere, such as a principal
    component. Published strengths: 0.17, 0.1 and 0.01 (VISTA and VTI by model), 0.0275 (AVS).

    Attributes:
        strength: 0 changes nothing.
        directions: an Array [n, d] for n layers; None: v is measured.
        negative: one of NEGATIVES that needs no clip.
    """

    site = "residual"
    one_per_layer: ClassVar[bool] = True
    strength: float = 0.17
    directions: Array | None = None
    negative: str = "omitted"
    formula = "(x + lambda v) |x| / |x + lambda v|"
    source = "LzVv123456/VISTA, shengliu66/VTI (code read); arXiv 2510.12851 (digest)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.directions is not None and self.directions.tensor.shape[:-1] != (len(self.layers),):
            raise InterventionError("directions is an Array [layers, d].")

    def measure(self, lalm: Any, prompt: Any) -> Mapping[str, Tensor]:
        """What the audio adds to the last token: float32 [B, n, 1, d]."""
        if self.directions is not None:
            return {}
        without = negative_prompt(lalm, prompt, self.negative)
        states = lalm.hidden_states(prompt, self.layers, last=True)
        return {"added": states - lalm.hidden_states(without, self.layers, last=True)}

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The residual stream [B, Q, d] after the rule."""
        at = self.layers.index(context.layer)
        stored = self.directions
        direction = context.measured["added"].to(x.device)[:, at] if stored is None else stored.on(x)[at]
        moved = x + self.strength * direction
        return moved * (x.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True))
