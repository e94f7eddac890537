"""The attention of rows over a shared past, in the place of the decoder's own attention function."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from mata_interp.attention import AttentionCall

from ..calls.call import attention_call

__all__ = ["EditScores", "RowAttention", "SuffixTokens", "attending"]

_NAME = "mata_rows"  # of our attention function, among those of transformers


class EditScores(Protocol):
    """``edit(layer, scores)``: scores [B, H, N, S, P + S], -inf where hidden -> the edited scores."""

    def __call__(self, layer: int, scores: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class SuffixTokens:
    """The tokens of one variant: the end of the prompt, its last token in slot ``given - 1``, then answers.

    Attributes:
        tokens: [B, S] ids.
        depth: [B, S] how far behind the last prompt token each stands; below 0 before it.
        sees: bool [B, S, S], which slots a slot sees; itself, the prompt's before it, and what comes before
            it in the same answer. Padding and windows are the mask's business.
        given: how many slots are tokens of the prompt.
    """

    tokens: Tensor
    depth: Tensor
    sees: Tensor
    given: int = 1


class RowAttention:
    """Attention of N variants of S slots, [B, H, N * S, D] queries, over the past and each over itself.

    Args:
        cache: keys and values of the P tokens before the slots.
        layers: the decoder's index of each attention module.
        slots: the same for every variant.
        edit: changes the scores before the softmax.
    """

    def __init__(self, cache: Any, layers: Mapping[Any, int], slots: SuffixTokens, edit: EditScores) -> None:
        self.layers = layers
        self._cache, self._slots, self._edit = cache, slots, edit
        self._owners: dict[int, weakref.ref[Tensor]] = {}  # of each layer of the cache, the keys of the rows
        # the mask seen last, the number of keys before the slots, and what it hides
        self._masked: tuple[Tensor | None, int, Tensor | None] | None = None
        self._origin: dict[int, Tensor] = {}  # and, if rows branched since, which of its rows each comes from

    def __call__(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        layer = self.layers[module]
        memory, key, value = self._shared(module, key, value)
        call = attention_call(layer, (module, query, key, value, None), kwargs)
        past = AttentionCall(query, memory.keys, memory.values, None, call.scaling, call.softcap)
        batch, heads, total, _ = query.shape
        width = self._slots.tokens.shape[1]
        apart = lambda x: _apart(x, width)  # noqa: E731
        own = AttentionCall(apart(query), apart(key), apart(value), None, call.scaling, call.softcap)

        rows = (batch, heads, total // width, width, -1)  # B, H, N, S
        scores = torch.cat(
            [past.raw_scores(slice(None)).reshape(rows), _together(own.raw_scores(slice(None)), batch)], -1
        )
        hidden = self._hidden(mask, past.length)
        if hidden is not None:
            scores = scores.masked_fill_(hidden[:, None, None], -torch.inf)
        weights = self._edit(layer, scores).softmax(-1)
        theirs, ours = weights.split([past.length, width], -1)
        out = past.mix(theirs.reshape(batch, heads, total, -1)).reshape(rows)
        out = out + _together(own.mix(_apart(ours.flatten(2, 3), width)), batch)
        return out.flatten(2, 3).transpose(1, 2).to(query.dtype).contiguous(), None  # (B, N * S, H, Dv)

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """In the place of the cache's: the past stays as it is, and the rows go on with their own keys."""
        self._owners[layer_idx] = weakref.ref(key)
        self._origin.pop(layer_idx, None)
        return key, value

    def branched(self, parents: Tensor) -> None:
        """From here on, the rows are children of these."""
        self._origin = {i: self._origin[i][parents] if i in self._origin else parents for i in self._owners}

    def _shared(self, module: Any, key: Tensor, value: Tensor) -> tuple[Any, Tensor, Tensor]:
        """The layer of the cache whose past goes with these keys, and keys and values of the rows.

        Where layers share keys, both are an earlier layer's, of the time before the rows branched.
        """
        owner = next((i for i, own in self._owners.items() if own() is key), module.layer_idx)
        if (origin := self._origin.get(owner)) is not None:
            width = self._slots.tokens.shape[1]
            key, value = (
                x.unflatten(2, (-1, width)).index_select(2, origin).flatten(2, 3) for x in (key, value)
            )
        return self._cache.layers[owner], key, value

    def _hidden(self, mask: Tensor | None, past: int) -> Tensor | None:
        """Which keys the slots do not see, bool [B, S, P + S]; None: they see all. Layers share masks."""
        if self._masked is None or self._masked[0] is not mask or self._masked[1] != past:
            hidden = ~self._visible(mask, past)
            self._masked = mask, past, hidden if hidden.any() else None
        return self._masked[2]

    def _visible(self, mask: Tensor | None, past: int) -> Tensor:
        """Which keys the slots see: bool [B, S, P + S]. Where a slot stands is its row and column."""
        sees, place = self._slots.sees, self._slots.depth + self._slots.given - 1
        if mask is None:
            return torch.cat([torch.ones(*place.shape, past, dtype=torch.bool, device=sees.device), sees], -1)
        rows = (mask if mask.dtype == torch.bool else mask == 0)[:, 0].expand(len(place), -1, -1)
        rows = rows.gather(1, place[:, :, None].expand(-1, -1, rows.shape[-1]))  # (B, S, P + S)
        own = rows[..., past:].gather(2, place[:, None].expand(-1, place.shape[1], -1))
        itself = torch.eye(place.shape[1], dtype=torch.bool, device=sees.device)  # padding sees itself alone
        return torch.cat([rows[..., :past], sees & (own | itself)], -1)


@contextmanager
def attending(decoder: Any, attention: RowAttention) -> Iterator[None]:
    """Inside, the decoder's attention is ours, through transformers' ``AttentionInterface``."""
    configs = {id(c): c for c in (decoder.config, *(m.config for m in attention.layers))}.values()
    before = [config._attn_implementation_internal for config in configs]
    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    try:
        for config in configs:
            config._attn_implementation_internal = _NAME
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation_internal = name
        for interface in (AttentionInterface, AttentionMaskInterface):
            interface._global_mapping.pop(_NAME, None)


def _apart(x: Tensor, width: int) -> Tensor:
    """[B, H, N * S, D] -> [B * N, H, S, D]: each variant a row of the batch."""
    return x.unflatten(2, (-1, width)).transpose(1, 2).flatten(0, 1)


def _together(x: Tensor, batch: int) -> Tensor:
    """[B * N, H, S, D] -> [B, H, N, S, D]."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)
