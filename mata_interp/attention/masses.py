"""Attention masses of many queries on groups of keys, without a T x T matrix.

Attention is a sum of values weighted by the attention row, so with the indicators of G groups of keys as
values its output is the row's mass on each group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

if TYPE_CHECKING:
    from .call import AttentionCall

__all__ = ["group_masses"]

BLOCK = 128  # queries at once: few enough for memory, enough for speed
PLAIN_BLOCK = 32  # queries at once by the plain formula, whose scores fit into the processor's cache


def group_masses(call: AttentionCall, rows: Tensor, groups: Tensor) -> Tensor:
    """Mass of each group in the attention rows of chosen queries: float32 [B, H, R, G].

    Memory is O(L) for each head, however many rows there are. Everything is computed in float32: bfloat16
    indicators would round a mass of 0.9 to 0.898. The masses of a query with no visible key are arbitrary.

    Args:
        call: one attention call.
        rows: int [R], the queries.
        groups: bool [B, G, L].
    """
    plain = call.softcap is not None or len(rows) == 1  # torch's attention has no softcap
    batch, heads = call.query.shape[:2]
    # filled block by block: pieces kept for a concatenation would fragment the memory between the blocks
    masses = torch.empty(batch, heads, len(rows), groups.shape[1], device=call.key.device)
    done = 0
    for block in (_plain if plain else _by_torch)(call, rows, groups):
        masses[:, :, done : done + block.shape[2]] = block
        done += block.shape[2]
    return masses


def _plain(call: AttentionCall, rows: Tensor, groups: Tensor) -> Iterator[Tensor]:
    """Masses of each block of rows, [B, H, R', G], by the formula."""
    indicators = groups.transpose(1, 2)[:, None].float()  # (B, 1, L, G)
    for block in rows.split(PLAIN_BLOCK):
        yield call.scores(block).softmax(-1) @ indicators


def _by_torch(call: AttentionCall, rows: Tensor, groups: Tensor) -> Iterator[Tensor]:
    """The same through torch's scaled_dot_product_attention, which stores no rows."""
    width, count = call.query.shape[-1], groups.shape[1]
    # torch's fast kernels need values as wide as the keys: without the padding T = 4,000 takes five times as
    # long and 1.2 GB
    indicators = pad(groups.transpose(1, 2)[:, None].float(), (0, max(0, width - count)))
    key = call.key.float()
    value = indicators.expand(-1, key.shape[1], -1, -1)
    bias = call.mask if call.mask is not None and call.mask.is_floating_point() else None
    before = call.length - call.query.shape[2]  # keys before the first query
    for block in rows.split(BLOCK):
        seen = call.visible(block)
        end = call.length
        if call.mask is None:  # no key after the block's last query is visible; other masks say so themselves
            end = before + int(block.max()) + 1
        mask = seen[..., :end]
        if bias is not None:
            added = bias[:, :, block, :end].float()
            mask = added.masked_fill(~mask, -torch.inf)
        yield scaled_dot_product_attention(
            call.query[:, :, block].float(),
            key[:, :, :end],
            value[:, :, :end],
            attn_mask=mask,
            scale=call.scaling,
            enable_gqa=key.shape[1] != call.query.shape[1],
        )[..., :count]
