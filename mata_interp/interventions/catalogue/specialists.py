"""Audio-specialist heads: their layers' response to the audio is added to the last hidden state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .negatives import negative_prompt
from .registry import register

__all__ = ["AudioSpecialists"]


@register
@dataclass(frozen=True)
class AudioSpecialists(Method):
    """Audio-specialist heads, as described by a digest of arXiv 2603.06854 (its code was not seen).

    The heads are those whose attention to audio at the last token correlates with being right; their layers
    are what the formula uses. b is not published.

    Attributes:
        layers: the last decoder layer alone, whose output is edited.
        specialists: the layers of the heads.
        strength: b; 0 changes nothing.
        negative: one of NEGATIVES that needs no clip; the digest says silence.
    """

    site = "residual"
    specialists: tuple[int, ...] = ()
    strength: float = 0.1
    negative: str = "silent"
    formula = "x + b mean over specialist layers of (h(audio) - h(negative))"
    source = "arXiv 2603.06854 (digest)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.specialists:
            raise InterventionError("specialists names the layers of the audio-specialist heads.")

    def measure(self, lalm: Any, prompt: Any) -> Mapping[str, Tensor]:
        """s: float32 [B, 1, d]."""
        silence = negative_prompt(lalm, prompt, self.negative)
        states = lalm.hidden_states(prompt, self.specialists, last=True)
        return {"s": (states - lalm.hidden_states(silence, self.specialists, last=True)).mean(1)}

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The residual stream [B, Q, d] after the rule."""
        return x + self.strength * context.measured["s"].to(x.device)
