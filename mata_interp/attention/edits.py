"""What may be done to the scores of one attention call, and how much it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vecdot
from torch.nn.functional import pad

__all__ = ["Change", "Dose", "Edit"]

LEAST = -1e30  # of logarithms, in place of -inf


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


class Change(NamedTuple):
    """Rows of scores before and after edits, [B, H, R, L], and the scores touched, bool [B, 1|H, 1|R, L]."""

    scores: Tensor
    edited: Tensor
    touched: Tensor

    @classmethod
    def joined(cls, changes: Sequence[Change]) -> Change:
        """Those of several layers and tokens side by side, as if they were heads: [B, H + H' + ..., R, L].

        Where one has fewer keys than another, hidden keys make it as long. A decoded token is one short row
        in every layer, where each operation costs more than its arithmetic.
        """
        if len(changes) == 1:
            return changes[0]
        longest = max(change.scores.shape[3] for change in changes)
        touched = [change.touched.expand_as(change.scores) for change in changes]
        return cls(
            _side_by_side([change.scores for change in changes], longest, -torch.inf),
            _side_by_side([change.edited for change in changes], longest, -torch.inf),
            _side_by_side(touched, longest, False),
        )

    def dose(self) -> Dose:
        """How much the edits did."""
        on = self.touched.expand_as(self.scores).float()
        logs = self.scores.log_softmax(-1), self.edited.log_softmax(-1)
        old, new = (log.exp() for log in logs)
        # a hidden key has -inf before and after: its part is 0, while 0 * (inf - inf) is not
        before, after = (log.clamp(min=LEAST) for log in logs)
        count = on.sum(-1)
        of = count.clamp(min=1)
        return Dose(
            mass_before=vecdot(old, on),
            mass_after=vecdot(new, on),
            kl=vecdot(new, after - before),
            boost=torch.where(self.touched, self.edited - self.scores, 0.0).sum(-1) / of,
            negative=vecdot((self.scores < 0).float(), on) / of,
            touched=count > 0,
        )


def _side_by_side(rows: Sequence[Tensor], longest: int, filled: float | bool) -> Tensor:
    """[B, H, R, L] of several L as one [B, H + H' + ..., R, longest]."""
    return torch.cat([pad(row, (0, longest - row.shape[3]), value=filled) for row in rows], 1)
