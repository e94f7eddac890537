"""The attention of rows over a shared past, in place of the decoder's own attention function."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mata_interp.attention import AttentionCall

from ..calls.attention_calls import Replace

__all__ = ["EditScores", "PastAttention", "RowAttention", "SuffixTokens"]


class EditScores(Protocol):
    """``edit(layer, scores)``: scores [B, H, N, S, P + S], -inf where hidden -> the edited scores."""

    def __call__(self, layer: int, scores: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class SuffixTokens:
    """The tokens of one variant: the end of the prompt, then answers.

    Attributes:
        tokens: [B, S] ids.
        depth: [B, S] places after the last prompt token; negative before it.
        sees: bool [B, S, S], which slots a slot sees: itself, the prompt's slots before it, and the slots
            before it in the same answer. Padding and windows are in the mask.
        prompt_slots: how many slots are tokens of the prompt.
    """

    tokens: Tensor
    depth: Tensor
    sees: Tensor
    prompt_slots: int = 1

    def to(self, device: torch.device) -> SuffixTokens:
        """The same on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("tokens", "depth", "sees")}
        return replace(self, **moved)


class PastAttention(Protocol):
    """What `RowAttention` needs of the attention to the past; `AttentionCall` has it."""

    @property
    def length(self) -> int: ...

    def raw_scores(self, rows: slice) -> Tensor: ...

    def mix(self, weights: Tensor) -> Tensor: ...


class RowAttention:
    """Attention of N variants of S slots over a shared past and each over itself, for ``attention_calls``.

    The queries of a call are [B, H, N * S, D].

    Args:
        cache: keys and values of the P tokens before the slots.
        modules: attention module of each layer, which names its layer of the cache.
        slots: the same for every variant.
        edit: changes the scores before the softmax.

    Attributes:
        edit_outputs: ``edit_outputs(layer, outputs)`` changes what the heads return; None: nothing does.
    """

    def __init__(
        self, cache: Any, modules: Mapping[int, nn.Module], slots: SuffixTokens, edit: EditScores
    ) -> None:
        self._cache, self._modules, self._slots, self._edit = cache, modules, slots, edit
        self._slots_on = {slots.tokens.device: slots}  # layers may be spread over devices
        # of each layer of the cache, the keys of the rows; layers that share keys pass the same tensor object
        self._owners: dict[int, weakref.ref[Tensor]] = {}
        # of each layer of the cache, which of its rows each row comes from if rows branched since; on the CPU
        self._origin: dict[int, Tensor] = {}
        self.edit_outputs: Callable[[int, Tensor], Tensor] | None = None  # of heads, [B, H, N, S, Dv]
        # on each device, the mask seen last, the number of keys before the slots, and what it hides
        self._last_mask: dict[torch.device, tuple[Tensor | None, int, Tensor | None]] = {}

    def __call__(self, layer: int, call: AttentionCall, total: int) -> Replace:
        query = call.query
        owner, key, value = self._shared_keys(layer, call.key, call.value)
        past = self._past(layer, owner, call)
        batch, heads, tokens, _ = query.shape
        width = self._slots.tokens.shape[1]
        itself = AttentionCall(
            _split_variants(query, width),
            _split_variants(key, width),
            _split_variants(value, width),
            None,
            call.scaling,
            call.softcap,
        )

        rows = (batch, heads, tokens // width, width, -1)  # B, H, N, S
        past_scores = past.raw_scores(slice(None)).reshape(rows)
        scores = torch.cat([past_scores, _join_variants(itself.raw_scores(slice(None)), batch)], -1)
        hidden = self._hidden(call.mask, past.length, query.device)
        if hidden is not None:
            scores = scores.masked_fill_(hidden[:, None, None], -torch.inf)
        weights = self._edit(layer, scores).softmax(-1)
        past_weights, own_weights = weights.split([past.length, width], -1)
        output = past.mix(past_weights.reshape(batch, heads, tokens, -1)).reshape(rows)
        output = output + _join_variants(itself.mix(_split_variants(own_weights.flatten(2, 3), width)), batch)
        if self.edit_outputs is not None:
            output = self.edit_outputs(layer, output)
        return Replace(output.flatten(2, 3).transpose(1, 2).to(query.dtype).contiguous())  # (B, N * S, H, Dv)

    def _past(self, layer: int, owner: int, call: AttentionCall) -> PastAttention:
        """Attention of the call's queries to the tokens before the slots.

        Args:
            layer: of the model.
            owner: the layer of the cache that holds the keys.
            call: with the queries of all rows.
        """
        cached = self._cache.layers[owner]
        return AttentionCall(call.query, cached.keys, cached.values, None, call.scaling, call.softcap)

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """In place of the cache's ``update``: the past stays unchanged, and the rows keep their own keys."""
        self._owners[layer_idx] = weakref.ref(key)
        self._origin.pop(layer_idx, None)
        return key, value

    def branch(self, parents: Tensor) -> None:
        """From here on, row n continues row ``parents[n]``."""
        parents = parents.cpu()
        self._origin = {i: self._origin[i][parents] if i in self._origin else parents for i in self._owners}

    def _shared_keys(self, layer: int, key: Tensor, value: Tensor) -> tuple[int, Tensor, Tensor]:
        """The layer of the cache whose past goes with these keys, and keys and values of the rows.

        Where layers share keys, both belong to an earlier layer, from before the rows branched.
        """
        module: Any = self._modules[layer]
        owner = next((i for i, keys in self._owners.items() if keys() is key), module.layer_idx)
        origin = self._origin.get(owner)
        if origin is not None:
            width = self._slots.tokens.shape[1]
            key, value = (
                x.unflatten(2, (-1, width)).index_select(2, origin.to(x.device)).flatten(2, 3)
                for x in (key, value)
            )
        return owner, key, value

    def _hidden(self, mask: Tensor | None, past: int, device: torch.device) -> Tensor | None:
        """Which keys the slots do not see, bool [B, S, P + S]; None: they see all. Layers share masks."""
        last = self._last_mask.get(device)
        if last is None or last[1] != past or not _same_mask(last[0], mask):
            hidden = ~self._visible(mask, past, device)
            last = self._last_mask[device] = mask, past, hidden if hidden.any() else None
        return last[2]

    def _visible(self, mask: Tensor | None, past: int, device: torch.device) -> Tensor:
        """Which keys the slots see: bool [B, S, P + S]. Where a slot stands is its row and column."""
        if device not in self._slots_on:
            self._slots_on[device] = self._slots.to(device)
        slots_here = self._slots_on[device]
        sees, place = slots_here.sees, slots_here.depth + slots_here.prompt_slots - 1
        if mask is None:
            return torch.cat([torch.ones(*place.shape, past, dtype=torch.bool, device=sees.device), sees], -1)
        rows = (mask if mask.dtype == torch.bool else mask == 0)[:, 0].expand(len(place), -1, -1)
        rows = rows.gather(1, place[:, :, None].expand(-1, -1, rows.shape[-1]))  # (B, S, P + S)
        slots = rows[..., past:].gather(2, place[:, None].expand(-1, place.shape[1], -1))
        itself = torch.eye(place.shape[1], dtype=torch.bool, device=sees.device)  # padding sees itself alone
        return torch.cat([rows[..., :past], sees & (slots | itself)], -1)


def _same_mask(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two layers have the same mask. Away from the first device each layer has a copy of its own."""
    if a is None or b is None or a is b:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def _split_variants(x: Tensor, width: int) -> Tensor:
    """[B, H, N * S, D] -> [B * N, H, S, D]: each variant becomes a row of the batch."""
    return x.unflatten(2, (-1, width)).transpose(1, 2).flatten(0, 1)


def _join_variants(x: Tensor, batch: int) -> Tensor:
    """[B * N, H, S, D] -> [B, H, N, S, D]."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)
