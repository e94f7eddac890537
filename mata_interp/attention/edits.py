"""What may be done to the scores of one attention call, and how much it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

__all__ = ["Dose", "Edit"]


class Edit(NamedTuple):
    """One change of the scores before the softmax.

    Attributes:
        rule: ``rule(scores[B, H, R, L], keys, alpha) -> scores``, with every head present.
        keys: bool, broadcastable to [B, H, R, L]: the scores it may touch. Keys that a row cannot see are
            left out before the rule is called.
        alpha: strength.
    """

    rule: Callable[[Tensor, Tensor, float], Tensor]
    keys: Tensor
    alpha: float


@dataclass(frozen=True)
class Dose:
    """How much edits changed the attention of each row.

    Everything is float32 [B, H, R], ``touched`` bool [B, H, R].
    ``mul`` moves a score by a share of itself and ``add`` by a constant, so one alpha is not one strength:
    the dose makes rules, layers and keys comparable.

    Attributes:
        mass_before, mass_after: attention mass on the edited keys (for MATA, the audio).
        kl: KL(edited row || original row), in nats.
        boost: mean change of the edited scores, in nats.
        negative: fraction of the edited scores that were below zero, where ``mul`` lowers attention.
        touched: whether the edits reach this row in this head at all; elsewhere the rest is zero.
    """

    mass_before: Tensor
    mass_after: Tensor
    kl: Tensor
    boost: Tensor
    negative: Tensor
    touched: Tensor
