"""DoLa: contrast the logits with those of an early layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.attention_edit import indices
from mata_interp.interventions.protocol import SiteContext

from .method import Described
from .negatives import drop_improbable
from .registry import register

__all__ = ["Dola"]


@register
@dataclass(frozen=True)
class Dola(Described):
    """DoLa (arXiv 2309.03883; code read: nervjack2/LALM-Contrastive-Decoding-Error-Profiles).

    Of the candidate layers, the one is taken whose distribution is the farthest from the final one; the
    distance is that of the published code, the mean of KL(m || p) and KL(m || q) with m their mixture, here
    for each row and token on its own.

    Attributes:
        early_layers: the candidates, from 0; their outputs go through the final norm and the output head.
        strength: 1 is DoLa; 0 changes nothing.
        cutoff: tokens less probable than this part of the most probable one are dropped; 0 drops none.
    """

    early_layers: tuple[int, ...]
    strength: float = 1.0
    cutoff: float = 0.1
    site = "logits"
    layers = ()
    queries = "last"
    phase = "both"
    formula = "log p - log p_early, where p >= cutoff max p"
    source = "arXiv 2309.03883; nervjack2/LALM-Contrastive-Decoding-Error-Profiles (code read)"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "early_layers", indices(self.early_layers, "early_layers"))
        if not self.early_layers:
            raise InterventionError("early_layers names no layer.")

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The logits [B, Q, V] after the contrast."""
        if self.strength == 0 or context.early is None:
            return x
        final, early = x.log_softmax(-1), context.early.log_softmax(-1)
        mixture = (final.exp() + early.exp()) / 2
        away = (mixture * (2 * mixture.log() - final - early)).nan_to_num().sum(-1) / 2  # (n, B, Q)
        chosen = early.gather(0, away.argmax(0)[None, :, :, None].expand(1, *early.shape[1:]))[0]
        return drop_improbable(final - self.strength * chosen, x, self.cutoff)
