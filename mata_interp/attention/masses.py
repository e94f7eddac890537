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

from .row_mask import RowMask

if TYPE_CHECKING:
    from .call import AttentionCall

__all__ = ["group_masses"]

Rows = slice | Tensor

BLOCK = 128  # queries at once: few enough for memory, enough for speed
PLAIN_BLOCK = 32  # queries at once by the plain formula, whose scores fit into the processor's cache


def group_masses(call: AttentionCall, rows: Rows, groups: Tensor, mask: RowMask | None = None) -> Tensor:
    """Mass of each group in the attention rows of chosen queries: float32 [B, H, R, G].

    Memory is O(L) for each head, however many rows there are. Everything is computed in float32: bfloat16
    indicators would round a mass of 0.9 to 0.898. The masses of a query with no visible key are arbitrary.

    Args:
        call: one attention call.
        rows: the queries: a slice, or their indices, int [R], on the CPU, where they can be read at no cost.
        groups: bool or float32 [B, G, L].
        mask: the row mask of a single query, where it is known.
    """
    batch, heads, queries = call.query.shape[:3]
    count = len(range(queries)[rows]) if isinstance(rows, slice) else len(rows)
    if count == 1:
        return _plain(call, rows, groups, mask)
    plain = call.softcap is not None  # torch's attention has no softcap
    # filled block by block: pieces kept for a concatenation would fragment the memory between the blocks
    masses = torch.empty(batch, heads, count, groups.shape[1], device=call.key.device)
    blocks = _blocks(rows, queries, PLAIN_BLOCK if plain else BLOCK)
    done = 0
    parts = (_plain(call, some, groups) for some in blocks) if plain else _by_torch(call, blocks, groups)
    for block in parts:
        masses[:, :, done : done + block.shape[2]] = block
        done += block.shape[2]
    return masses


def _blocks(rows: Rows, queries: int, size: int) -> Iterator[Rows]:
    """The rows in blocks of ``size``; of a slice, slices, which need no index on the device."""
    if isinstance(rows, Tensor):
        yield from rows.split(size)
        return
    every = range(queries)[rows]
    if every.step != 1:
        yield from torch.tensor(every).split(size)
        return
    for begin in range(every.start, every.stop, size):
        yield slice(begin, min(begin + size, every.stop))


def _plain(call: AttentionCall, rows: Rows, groups: Tensor, mask: RowMask | None = None) -> Tensor:
    """Masses of some rows by the formula, [B, H, R, G]."""
    weights = call.scores(rows, mask).softmax(-1)
    # heads and rows together, so that the indicators need no copy for each head
    return (weights.flatten(1, 2) @ groups.transpose(1, 2).float()).unflatten(1, weights.shape[1:3])


def _by_torch(call: AttentionCall, blocks: Iterator[Rows], groups: Tensor) -> Iterator[Tensor]:
    """The same through torch's scaled_dot_product_attention, which stores no rows."""
    width, count = call.query.shape[-1], groups.shape[1]
    # torch's fast kernels need values as wide as the keys: without the padding T = 4,000 takes five times as
    # long and 1.2 GB
    indicators = pad(groups.transpose(1, 2)[:, None].float(), (0, max(0, width - count)))
    key = call.key.float()
    value = indicators.expand(-1, key.shape[1], -1, -1)
    bias = call.mask if call.mask is not None and call.mask.is_floating_point() else None
    before = call.length - call.query.shape[2]  # keys before the first query
    for block in blocks:
        visible = call.visible(block)
        end = call.length
        if call.mask is None:  # no key after the block's last query is visible; other masks say so themselves
            last = block.stop - 1 if isinstance(block, slice) else int(block.max())
            end = before + last + 1
        mask = visible[..., :end]
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
