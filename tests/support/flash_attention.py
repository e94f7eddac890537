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
        queries_at = places[len(key) - len(query) :, None]
        visible = places <= queries_at
        if window is not None:
            visible &= places > queries_at - window
        scores = scores.masked_fill(~visible, -torch.inf)
    return torch.einsum("htl,lhd->thd", scores.softmax(-1), value).to(query.dtype)


class FlashAttention:
    """The function, and what it was called with: ``masks`` and ``windows``, a set of each.

    ``original``, if it is set, is called too, and its output compared.
    """

    def __init__(self) -> None:
        self.original: Any = None
        self.compared = 0
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
        original_mask = attention_mask
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
        if self.original is not None:
            args = (module, *(x.transpose(1, 2) for x in (query, key, value)), original_mask)
            more = {"scaling": scaling, "sliding_window": sliding_window, "softcap": softcap}
            expected, _ = self.original(*args, **more, is_causal=is_causal, **kwargs)
            torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)
            self.compared += 1
        return output, None


def kernel(
    query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
    causal: bool = False, window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
) -> Tensor:  # fmt: skip
    """``flash_attn.flash_attn_func``: [B, T, H, D] on [B, L, Hkv, D]."""
    assert softmax_scale is not None
    window = None if window_size[0] < 0 else window_size[0] + 1
    rows = zip(query, key, value, strict=True)
    return torch.stack([attend(*row, softmax_scale, window, softcap or None, causal) for row in rows])


def varlen_kernel(  # noqa: PLR0913 arguments of flash-attn
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
    max_seqlen_k: int, dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
    window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
) -> Tensor:  # fmt: skip
    """``flash_attn.flash_attn_varlen_func``: the tokens of all sequences one after the other."""
    settings = (dropout_p, softmax_scale, causal, window_size, softcap)
    bounds = zip(cu_seqlens_q[:-1], cu_seqlens_q[1:], cu_seqlens_k[:-1], cu_seqlens_k[1:], strict=True)
    pieces = [(query[a:b], key[c:d], value[c:d]) for a, b, c, d in bounds]
    return torch.cat([kernel(*(x[None] for x in piece), *settings)[0] for piece in pieces])


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
