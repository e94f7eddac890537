"""Audio-specialist heads: their layers' response to the audio is added to the last hidden state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.protocol import SiteContext

from .method import Method
from .negatives import negative_prompt
from .registry import register

__all__ = ["AudioSpecialists", "find_specialist_heads"]


def find_specialist_heads(trace: Any, correct: Any, count: int = 10) -> tuple[tuple[int, int, float], ...]:
    """The heads whose attention to audio goes with being right: (layer, head, correlation), largest first.

    The correlation over items is that of the audio mass at the last prompt token with whether the answer is
    correct. Heads are chosen on the items of the trace: test them on others, and pass the trace's clips
    (``trace["cluster"].values``) as ``chosen_on`` of what edits them, so that no test on these clips has a
    p-value.

    Args:
        trace: from `mata_interp.trace` with ``query="last"``.
        correct: of each item of the trace, in order.
        count: at most so many heads, of those with a positive correlation.

    Raises:
        InterventionError: all answers are correct, or none.
    """
    mass = trace["mass"].sel(group="audio").values.astype(float)  # (items, layers, heads)
    right = np.asarray(correct, dtype=float)
    if right.std() == 0:
        raise InterventionError("Specialist heads need both correct and wrong answers.")
    centred, offset = mass - mass.mean(0), right - right.mean()
    spread = mass.std(0) * right.std()
    related = (centred * offset[:, None, None]).mean(0) / np.where(spread > 0, spread, np.inf)
    order = np.argsort(-np.nan_to_num(related, nan=-1.0), axis=None, kind="stable")[:count]
    places = [np.unravel_index(place, related.shape) for place in order]
    layers = trace["layer"].values
    ranking = [(int(layers[layer]), int(head), float(related[layer, head])) for layer, head in places]
    return tuple(place for place in ranking if place[2] > 0)


@register
@dataclass(frozen=True)
class AudioSpecialists(Method):
    """Audio-specialist heads, as described by a digest of arXiv 2603.06854 (its code was not seen).

    The heads are those whose attention to audio at the last token correlates with being right; their layers
    are what the formula uses; `find_specialist_heads` finds them. b is not published.

    Attributes:
        layers: the last decoder layer alone, whose output is edited.
        specialists: the layers of the heads.
        strength: b; 0 changes nothing.
        negative: one of NEGATIVES that needs no clip; the digest says silence.
        chosen_on: the clips on which the heads were chosen, if any; a comparison on one has no p-value.
    """

    site = "residual"
    specialists: tuple[int, ...] = ()
    strength: float = 0.1
    negative: str = "silent"
    chosen_on: tuple[str, ...] = ()
    formula = "x + b mean over specialist layers of (h(audio) - h(negative))"
    source = "arXiv 2603.06854 (digest)"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "chosen_on", tuple(sorted(set(map(str, self.chosen_on)))))
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
