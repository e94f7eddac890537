"""One call of the attention function: the scores of chosen queries, their visible keys, and edits.

The row of a single query needs only that query and the keys: O(L) for each head, never a T x T matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .edits import Change, Edit
from .masses import group_masses
from .row_mask import RowMask

__all__ = ["AttentionCall"]


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """Queries, keys and values as the attention function receives them: rotated, normalised, cached.

    B rows of a batch, H query heads, Hkv key heads (a divisor of H: query head h reads key head
    h // (H / Hkv)), Q queries, L keys. The last query stands at the last key's position.

    Attributes:
        query: [B, H, Q, D].
        key: [B, Hkv, L, D].
        value: [B, Hkv, L, Dv]; Dv may differ from D.
        mask: the keys visible to each query. None: all earlier keys and its own. Bool [B|1, 1|H, Q, L]: True
            is visible. Bool or integer [B, L]: real keys, visible causally. Float [B|1, 1|H, Q, L]: added to
            the scores.
        scaling: factor on query . key; the model's own, not always D ** -0.5.
        softcap: if not None, scores become softcap * tanh(scores / softcap) before the mask.
        window: if not None, only this many newest keys are visible to a query, its own included, where the
            mask does not already say so (None or [B, L]).
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

    def of_prompts(self, rows: slice) -> AttentionCall:
        """The same call for some rows of the batch."""
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[rows]
        return replace(self, query=self.query[rows], key=self.key[rows], value=self.value[rows], mask=mask)

    def biased(self, bias: Tensor) -> AttentionCall:
        """The same call with a bias, [B|1, H|1, Q|1, L|1], added to its scores after any softcap."""
        bias = bias.float()
        if self.mask is not None and self.mask.is_floating_point():
            bias = bias + self.mask[..., : self.length].float()
        return replace(self, mask=torch.where(self.visible(slice(None)), bias, -torch.inf), window=None)

    def visible(self, rows: slice | Tensor) -> Tensor:
        """The keys visible to the chosen queries (a slice, or their indices): bool [B|1, 1|H, R, L]."""
        mask = self.mask
        if mask is not None and mask.dim() == 4:
            mask = mask[:, :, rows, : self.length]
            # additive masks hide with the least finite number or -inf; no bias is as low as half of that
            return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        queries, device = self.query.shape[2], self.key.device
        reach = torch.arange(self.length - queries, self.length, device=device)[rows, None]  # own position
        key = torch.arange(self.length, device=device)
        visible = key <= reach
        if self.window is not None:
            visible = visible & (key > reach - self.window)
        visible = visible[None, None]  # (1, 1, R, L)
        return visible if mask is None else visible & mask[:, None, None, -self.length :].bool()

    def row_mask(self, rows: slice | Tensor) -> RowMask:
        """Which keys the chosen queries see, and what the mask adds to their scores.

        Layers whose calls have the same mask object share it, so that it is computed once for all of them.
        """
        if self._sees_all(rows):
            return RowMask(None, None)
        visible = self.visible(rows)
        if self.mask is not None and self.mask.is_floating_point():
            bias = self.mask[:, :, rows, : self.length].float()
            return RowMask(visible, bias.masked_fill(~visible, -torch.inf))
        hidden = torch.full(visible.shape, -torch.inf, device=visible.device)
        return RowMask(visible, hidden.masked_fill_(visible, 0.0))

    def scores(self, rows: slice | Tensor, mask: RowMask | None = None) -> Tensor:
        """Scores of the chosen queries before the softmax: float32 [B, H, R, L], -inf where not visible.

        Args:
            rows: the queries: a slice, or their indices, int [R].
            mask: the `row_mask` of these queries, where it is known.
        """
        added = (mask or self.row_mask(rows)).added
        products = self._products(rows)
        if added is None:
            return self._scaled(products)
        if self.softcap is not None:
            return self._scaled(products).add_(added)
        # one operation for both: on an accelerator a row costs little but the launch of each operation
        return torch.add(added, products, alpha=self.scaling)

    def masses(self, rows: slice | Tensor, groups: Tensor, mask: RowMask | None = None) -> Tensor:
        """Attention mass of groups of keys: float32 [B, H, R, G]; O(L) memory for each head, for any R.

        Args:
            rows: the queries: a slice, or their indices, int [R], on the CPU.
            groups: bool or float32 [B, G, L]. Where every visible key is in exactly one group the masses sum
                to 1.
            mask: the `row_mask` of a single query, where it is known.
        """
        return group_masses(self, rows, groups, mask)

    def delta(self, edits: Sequence[Edit], rows: slice, mask: RowMask | None = None) -> tuple[Tensor, Change]:
        """The change of the call's output by edits of its scores (at least one), performed in order.

        The difference (softmax(edited) - softmax(scores)) V is added, instead of an edited row replacing the
        old one, so that an edit that changes nothing leaves every bit of the output, whatever kernel and
        precision computed it.

        Args:
            edits: a first edit whose ``visible_only`` is set names visible keys only.
            rows: the queries.
            mask: their `row_mask`, where it is known.

        Returns:
            float32 [B, R, H, Dv], to be added to the output rows, and the scores before and after.
        """
        mask = mask or self.row_mask(rows)
        first, *more = edits
        if first.pair is not None and not more and self.softcap is None:
            return self._delta_of_pair(first.pair, first.keys, rows, mask)
        scores = self.scores(rows, mask)
        hides = mask.visible is not None and not first.visible_only
        touched = first.keys & mask.visible if hides and mask.visible is not None else first.keys
        edited = first.rule(scores, touched, first.alpha)
        for edit in more:
            # neither hidden keys nor those that an earlier edit knocked out
            keys = edit.keys & (edited > -torch.inf)
            edited, touched = edit.rule(edited, keys, edit.alpha), touched | keys
        change = self.mix(edited.softmax(-1) - scores.softmax(-1))
        return change.transpose(1, 2), Change(scores, edited, touched)

    def _delta_of_pair(
        self, pair_of: Callable[[Tensor], Tensor], keys: Tensor, rows: slice, mask: RowMask
    ) -> tuple[Tensor, Change]:
        """`delta` of one edit that computes the scores before and after at once.

        Args:
            pair_of: the edit's ``pair``.
            keys: the visible keys that it touches.
            rows: the queries.
            mask: their `row_mask`.
        """
        query, key = self._per_key_head(self.query[:, :, rows].float()), self.key.float()
        query, key = query.flatten(0, 1), key.transpose(2, 3).flatten(0, 1)
        # the scale within the product; with beta=0 the first argument gives only its type
        products = torch.baddbmm(query[..., :1], query, key, beta=0, alpha=self.scaling)
        scores = products.view(len(self.query), self.query.shape[1], -1, self.length)
        pair = pair_of(scores)  # (2, B, H, R, L)
        pair = pair if mask.added is None else pair + mask.added
        before, after = pair.softmax(-1)
        return self.mix(after - before).transpose(1, 2), Change(pair[0], pair[1], keys, pair)

    def raw_scores(self, rows: slice | Tensor) -> Tensor:
        """Scores of the chosen queries, hidden keys included: float32 [B, H, R, L]."""
        scores = self._scaled(self._products(rows))
        if self.mask is not None and self.mask.is_floating_point():
            scores = scores + self.mask[:, :, rows, : self.length].float()
        return scores

    def _products(self, rows: slice | Tensor) -> Tensor:
        """Products of the chosen queries and all keys: float32 [B, H, R, L]."""
        query = self.query[:, :, rows].float()
        products = self._per_key_head(query) @ self.key.float().transpose(2, 3)  # (B, Hkv, H / Hkv * R, L)
        return products.reshape(*query.shape[:3], -1)

    def _scaled(self, products: Tensor) -> Tensor:
        """Products, which are changed in place, as scores without a mask."""
        scores = products.mul_(self.scaling)
        return scores if self.softcap is None else self.softcap * torch.tanh(scores / self.softcap)

    def mix(self, weights: Tensor) -> Tensor:
        """Values summed by weights [B, H, R, L]: float32 [B, H, R, Dv]."""
        mixed = self._per_key_head(weights) @ self.value.float()  # (B, Hkv, H / Hkv * R, Dv)
        return mixed.reshape(*weights.shape[:3], -1)

    def _sees_all(self, rows: slice | Tensor) -> bool:
        """Whether every key is visible to the chosen queries, as far as that is certain without a mask."""
        if self.mask is not None or not isinstance(rows, slice):
            return False
        queries, window = self.query.shape[2], self.window
        near = window is None or window >= self.length
        return near and range(queries)[rows] == range(queries - 1, queries)

    def _per_key_head(self, x: Tensor) -> Tensor:
        """[B, H, R, N] -> [B, Hkv, H / Hkv * R, N], so that keys and values need no copy for each head."""
        return x.reshape(x.shape[0], self.key.shape[1], -1, x.shape[-1])
