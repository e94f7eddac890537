"""FlashAttention in plain torch, under its name in transformers, where no kernel of it runs.

It receives what transformers gives the real one, a mask of keys [B, L] or none and ``sliding_window`` as a
keyword, and computes as that does: in the layout (B, T, H, D), each row of a batch without its padding, whose
output is zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "flash_attention_2"


def attend(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, softcap: float | None,
    causal: bool,
) -> Tensor:  # fmt: skip
    """One sequence, [T, H, D] on [L, Hkv, D]: what ``flash_attn_varlen_func`` does with it.

    Causal masks end at the lower right corner. The window of a query is itself and the ``window - 1`` keys
    before it. Sums are in float32.
    """
    repeats = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(repeats, 1).float() for x in (key, value))
    scores = torch.einsum("thd,lhd->htl", query.float() * scaling, key)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        places = torch.arange(len(key))
        own = places[len(key) - len(query) :, None]
        seen = places <= own
        if window is not None:
            seen &= places > own - window
        scores = scores.masked_fill(~seen, -torch.inf)
    return torch.einsum("htl,lhd->thd", scores.softmax(-1), value).to(query.dtype)


class FlashAttention:
    """The function, and what it was called with: ``masks`` and ``windows``, a set of each."""

    def __init__(self) -> None:
        self.masks: set[int | None] = set()  # numbers of dimensions
        self.windows: set[int | None] = set()

    def __call__(  # noqa: PLR0913 transformers' own arguments
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        is_causal: bool | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        self.masks.add(None if attention_mask is None else attention_mask.dim())
        self.windows.add(sliding_window)
        causal = module.is_causal if is_causal is None else is_causal
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # (B, T, H, D)
        if attention_mask is None:
            attention_mask = query.new_ones(key.shape[:2])
        elif attention_mask.dim() != 2:
            raise AssertionError(f"a mask of shape {tuple(attention_mask.shape)}")
        output = query.new_zeros(*query.shape[:3], value.shape[-1])
        settings = (scaling or query.shape[-1] ** -0.5, sliding_window, softcap, causal)
        for row, mask in enumerate(attention_mask.bool()):
            tokens = mask[-query.shape[1] :]
            keys, values = (x[row, : len(mask)][mask] for x in (key, value))  # a static cache has room behind
            output[row, tokens] = attend(query[row, tokens], keys, values, *settings)
        return output, None


@contextmanager
def flash_attention() -> Iterator[FlashAttention]:
    """Inside, transformers calls it under the name of FlashAttention 2."""
    table = AttentionInterface()
    before, stand_in = table[NAME], FlashAttention()
    AttentionInterface.register(NAME, stand_in)
    try:
        yield stand_in
    finally:
        AttentionInterface.register(NAME, before)
