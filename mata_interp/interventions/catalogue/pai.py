"""PAI: raise the last token's scores, with or without guidance against the prompt without its audio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mata_interp.interventions.attention_edit import AttentionEdit

from .guidance import Guidance
from .method import Composite
from .registry import register

__all__ = ["Pai"]


@register
@dataclass(frozen=True)
class Pai(Composite):
    """PAI (arXiv 2407.21771; the authors' code was read: LALBJ/PAI), on audio in place of the image.

    The boost is off in the pass without audio. The authors edit layers 2-32 of 32.

    Attributes:
        strength: of the boost; 0 is none.
        guidance: g; 1 is none, and needs no extra pass.
        cutoff: tokens less probable than this part of the most probable one are dropped; 0 drops none.
    """

    strength: float = 0.2
    guidance: float = 1.0
    cutoff: float = 0.1
    formula = "A + a |A| on audio; log p = g (log p - log p_without) + log p_without"
    source = "LALBJ/PAI (code read)"

    @property
    def parts(self) -> tuple[Any, ...]:
        """The boost, and the guidance unless it is 1."""
        boost = AttentionEdit(self.strength, self.layers, "abs")
        return (boost,) if self.guidance == 1 else (boost, Guidance(self.guidance, self.cutoff))
