"""Edits of the scores of one attention call, and their dose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vecdot

__all__ = ["Change", "Dose", "Edit"]

LEAST = -1e30  # in place of -inf, in logarithms


class Edit(NamedTuple):
    """One edit of the scores before the softmax.

    Attributes:
        rule: ``rule(scores[B, H, R, L], keys, alpha) -> scores``, with every head present.
        keys: bool, broadcastable to [B, H, R, L]: the scores it may touch. Hidden keys are left out before
            the rule is called.
        alpha: strength.
        visible_only: whether no hidden key is among ``keys`` as they are; only the first edit's matters.
        pair: ``pair(scores)`` -> [2, B, H, R, L], the scores before and after the edit, of scores without a
            mask. A single edit that has it is performed in fewer operations than by its rule.
    """

    rule: Callable[[Tensor, Tensor, float], Tensor]
    keys: Tensor
    alpha: float
    visible_only: bool = False
    pair: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Dose:
    """How much edits changed the attention of each row.

    Everything is float32 [B, H, R], ``touched`` bool [B, H, R].
    ``mul`` changes a score by a share of itself and ``add`` by a constant, so the same alpha is not the same
    strength: the dose makes rules, layers and keys comparable.

    Attributes:
        mass_before, mass_after: attention mass on the edited keys (for MATA, the audio).
        kl: KL(edited row || original row), in nats.
        boost: mean change of the edited scores, in nats.
        negative: fraction of the edited scores that were below zero, where ``mul`` lowers attention.
        touched: whether the edits touch this row in this head; where not, all other values are zero.
    """

    mass_before: Tensor
    mass_after: Tensor
    kl: Tensor
    boost: Tensor
    negative: Tensor
    touched: Tensor


class Change(NamedTuple):
    """Rows of scores before and after edits.

    Attributes:
        scores: those before, [B, H, R, L].
        edited: those after, in the same shape.
        touched: which were touched, bool [B, 1|H, 1|R, L].
        pair: both in one tensor, [2, B, H, R, L], where they were computed at once: it is joined with others
            in one operation.
    """

    scores: Tensor
    edited: Tensor
    touched: Tensor
    pair: Tensor | None = None

    def detach(self) -> Change:
        """The same without gradients; tensors that have none stay the same objects."""
        scores, edited, touched = (x.detach() if x.requires_grad else x for x in self[:3])
        pair = self.pair.detach() if self.pair is not None and self.pair.requires_grad else self.pair
        return Change(scores, edited, touched, pair)

    @classmethod
    def joined(cls, changes: Sequence[Change]) -> Change:
        """Changes of several layers and tokens side by side, as if they were heads: [B, H + H' + ..., R, L].

        Changes with fewer keys are padded with hidden keys. A decoded token is one short row in every layer,
        where each operation costs more than its arithmetic, so that joining saves time.
        """
        by_length: dict[int, list[Change]] = {}
        for change in changes:
            by_length.setdefault(change.scores.shape[3], []).append(change)
        if len(by_length) == 1:
            return cls(
                torch.cat([change.scores for change in changes], 1),
                torch.cat([change.edited for change in changes], 1),
                _touched_side_by_side(changes),
            )
        first, longest = changes[0].scores, max(by_length)
        shape = (len(first), sum(change.scores.shape[1] for change in changes), first.shape[2], longest)
        both = first.new_full((2, *shape), -torch.inf)
        touched = torch.zeros(shape, dtype=torch.bool, device=first.device)
        done = 0
        for length, some in by_length.items():  # the layers of a token are equally long, and put in at once
            heads = sum(change.scores.shape[1] for change in some)
            place = (slice(None), slice(done, done + heads), slice(None), slice(length))
            pairs = [change.pair for change in some if change.pair is not None]
            if len(pairs) == len(some):
                torch.cat(pairs, 2, out=both[:, *place])
            else:
                torch.cat([change.scores for change in some], 1, out=both[0][place])
                torch.cat([change.edited for change in some], 1, out=both[1][place])
            touched[place] = _touched_side_by_side(some)
            done += heads
        return cls(both[0], both[1], touched)

    def dose(self) -> Dose:
        """The dose of the edits."""
        on = self.touched.expand_as(self.scores).float()
        logs = self.scores.log_softmax(-1), self.edited.log_softmax(-1)
        old, new = (log.exp() for log in logs)
        # a hidden key has -inf before and after: it contributes 0, while 0 * (inf - inf) is NaN
        before, after = (log.clamp(min=LEAST) for log in logs)
        count = on.sum(-1)
        divisor = count.clamp(min=1)
        return Dose(
            mass_before=vecdot(old, on),
            mass_after=vecdot(new, on),
            kl=vecdot(new, after - before),
            boost=torch.where(self.touched, self.edited - self.scores, 0.0).sum(-1) / divisor,
            negative=vecdot((self.scores < 0).float(), on) / divisor,
            touched=count > 0,
        )


def _touched_side_by_side(changes: Sequence[Change]) -> Tensor:
    """Which scores of equally long changes are touched, bool, in a shape that broadcasts to them all."""
    first = changes[0].touched
    if all(change.touched is first for change in changes) and (first.dim() < 3 or first.shape[-3] == 1):
        return first  # layers that are alike
    return torch.cat([change.touched.expand_as(change.scores) for change in changes], 1)
