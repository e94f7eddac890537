"""One call of the attention function: the scores of chosen rows, what they see, and what an edit changes.

The row of a single query needs only that query and the keys: O(L) for each head, never a T x T matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .edits import Dose, Edit
from .masses import group_masses

__all__ = ["AttentionCall"]


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """Queries, keys and values as the attention function gets them: rotated, normalised, cached.

    B rows of a batch, H query heads, Hkv key heads (a divisor of H: query head h reads key head
    h // (H / Hkv)), Q queries, L keys. The last query stands at the last key's position.

    Attributes:
        query: [B, H, Q, D].
        key: [B, Hkv, L, D].
        value: [B, Hkv, L, Dv]; Dv may differ from D.
        mask: what each query may see. None: every earlier key and itself. Bool [B|1, 1|H, Q, L]: True = seen.
            Bool or integer [B, L]: real keys, seen causally. Float [B|1, 1|H, Q, L]: added to the scores.
        scaling: factor on query . key; the model's own, not always D ** -0.5.
        softcap: if given, scores become softcap * tanh(scores / softcap) before the mask.
        window: a query also sees no further back than this many keys, itself included, where the mask does
            not already say so (None or [B, L]).
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    softcap: float | None = None
    window: int | None = None

    @property
    def length(self) -> int:
        """L, the number of keys."""
        return self.key.shape[2]

    def visible(self, rows: slice | Tensor) -> Tensor:
        """Which keys the chosen queries (a slice, or their numbers) see: bool [B|1, 1|H, R, L]."""
        mask = self.mask
        if mask is not None and mask.dim() == 4:
            mask = mask[:, :, rows, : self.length]
            # additive masks hide with the least finite number or -inf; half of that no bias ever is
            return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        queries, device = self.query.shape[2], self.key.device
        reach = torch.arange(self.length - queries, self.length, device=device)[rows, None]  # own position
        key = torch.arange(self.length, device=device)
        seen = key <= reach
        if self.window is not None:
            seen = seen & (key > reach - self.window)
        seen = seen[None, None]  # (1, 1, R, L)
        return seen if mask is None else seen & mask[:, None, None, -self.length :].bool()

    def scores(self, rows: slice | Tensor) -> Tensor:
        """Scores of the chosen queries before the softmax: float32 [B, H, R, L], -inf where not visible."""
        return self.raw_scores(rows).masked_fill(~self.visible(rows), -torch.inf)

    def masses(self, rows: slice | Tensor, groups: Tensor) -> Tensor:
        """Attention mass of groups of keys: float32 [B, H, R, G]; O(L) memory for each head, for any R.

        Args:
            rows: which queries: a slice, or their numbers, int [R].
            groups: bool [B, G, L]. Where every visible key is in exactly one group the masses sum to 1.
        """
        chosen = torch.arange(self.query.shape[2])[rows] if isinstance(rows, slice) else rows
        return group_masses(self, chosen, groups)

    def delta(self, edits: Sequence[Edit], rows: slice) -> tuple[Tensor, Dose]:
        """What edits of the scores, made one after the other, add to the call's output.

        Adding (softmax(edited) - softmax(scores)) V instead of putting an edited row in place of the old one
        makes an edit that changes nothing exactly nothing, whatever kernel and precision computed the output.

        Returns:
            float32 [B, R, H, Dv], to be added to the output rows, and the dose.
        """
        scores = self.scores(rows)
        edited, touched = scores, torch.zeros_like(scores, dtype=torch.bool)
        for edit in edits:
            keys = edit.keys & (edited > -torch.inf)  # neither what is hidden nor what was knocked out before
            edited, touched = edit.rule(edited, keys, edit.alpha), touched | keys
        before, after = scores.log_softmax(-1), edited.log_softmax(-1)
        old, new = before.exp(), after.exp()
        return self.mix(new - old).transpose(1, 2), _dose(scores, edited, before, after, touched)

    def raw_scores(self, rows: slice | Tensor) -> Tensor:
        """Scores of the chosen queries, those of hidden keys included: float32 [B, H, R, L]."""
        query = self.query[:, :, rows].float() * self.scaling
        scores = self._per_key_head(query) @ self.key.float().transpose(2, 3)  # (B, Hkv, H / Hkv * R, L)
        scores = scores.reshape(*query.shape[:3], -1)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if self.mask is not None and self.mask.is_floating_point():
            scores = scores + self.mask[:, :, rows, : self.length].float()
        return scores

    def mix(self, weights: Tensor) -> Tensor:
        """Values summed by weights [B, H, R, L]: float32 [B, H, R, Dv]."""
        mixed = self._per_key_head(weights) @ self.value.float()  # (B, Hkv, H / Hkv * R, Dv)
        return mixed.reshape(*weights.shape[:3], -1)

    def _per_key_head(self, x: Tensor) -> Tensor:
        """[B, H, R, N] -> [B, Hkv, H / Hkv * R, N], so that keys and values need no copy for each head."""
        return x.reshape(x.shape[0], self.key.shape[1], -1, x.shape[-1])


def _dose(scores: Tensor, edited: Tensor, before: Tensor, after: Tensor, touched: Tensor) -> Dose:
    """From scores [B, H, R, L] and their log-softmax, before and after."""
    count = touched.sum(-1).clamp(min=1)
    new = after.exp()
    # a hidden key has -inf before and after: its part is 0, while 0 * (inf - inf) is not
    change = torch.where(new > 0, after - before, 0.0)
    return Dose(
        mass_before=(before.exp() * touched).sum(-1),
        mass_after=(new * touched).sum(-1),
        kl=(new * change).sum(-1),
        boost=torch.where(touched, edited - scores, 0.0).sum(-1) / count,
        negative=((scores < 0) & touched).sum(-1) / count,
        touched=touched.any(-1),
    )
