"""Key-value caches that many continuations share: branches leave a cache unchanged and copy little."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from mata_interp.compat import DynamicLayer, can_crop, has_recurrent_state

__all__ = [
    "branch_cache",
    "cache_bytes",
    "crop_last_token",
    "has_state_layers",
    "position_ids_after",
    "preallocate",
    "repeat_cache",
    "set_prompt_positions",
    "shortened",
    "with_next_position",
]


def set_prompt_positions(cache: Any, positions: Tensor | None) -> Any:
    """Store on the cache the position ids with which the model called its decoder; returns the cache.

    Multimodal rotary positions are computed from the whole prompt, and some models keep what they need to
    continue from a cache on themselves, from whichever prompt came last. Continuations from several caches
    therefore pass their positions themselves.
    """
    cache.prompt_positions = positions
    return cache


def with_next_position(cache: Any) -> Any:
    """The cache, its positions those of one token more, which is text; returns the cache."""
    positions = getattr(cache, "prompt_positions", None)
    if positions is not None:
        cache.prompt_positions = torch.cat([positions, positions[..., -1:] + 1], -1)
    return cache


def position_ids_after(cache: Any, first: int, count: int) -> dict[str, Tensor]:
    """``position_ids`` for ``count`` tokens, the first one ``first`` places after the last prompt token.

    Empty where the decoder counts its positions itself.
    """
    positions = getattr(cache, "prompt_positions", None)
    if positions is None:
        return {}
    ahead = torch.arange(first, first + count, device=positions.device)
    return {"position_ids": positions[..., -1:] + ahead}


def branch_cache(cache: Any) -> Any:
    """A cache that continues from this one and leaves it unchanged.

    Dynamic layers grow into new tensors, so that copies of the layer objects are enough. Recurrent and
    convolutional states are overwritten in place, and are copied. Branches of a preallocated cache write to
    the same memory: use one after the other, not in turns.
    """
    branch = copy.copy(cache)
    branch.layers = [
        _copy_states(layer) if has_recurrent_state(layer) else copy.copy(layer) for layer in cache.layers
    ]
    return branch


def _copy_states(layer: Any) -> Any:
    """A copy of the layer with states of its own; its keys and values, if any, grow as in other layers."""
    branch = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):  # one entry for each state
            setattr(branch, name, {i: x.clone() if isinstance(x, Tensor) else x for i, x in value.items()})
    return branch


def repeat_cache(cache: Any, copies: int) -> Any:
    """A cache of ``copies * B`` rows: those of this cache, again and again. It stays unchanged."""
    repeated, positions = branch_cache(cache), getattr(cache, "prompt_positions", None)
    rows = torch.arange(len(_tensors(cache)[0])).repeat(copies)
    repeated.reorder_cache(rows)  # of states as well, where batch_repeat_interleave knows keys alone
    if positions is not None and positions.shape[-2] > 1:
        positions = positions.index_select(-2, rows.to(positions.device))
    return set_prompt_positions(repeated, positions)


def cache_bytes(cache: Any) -> int:
    """Bytes of all keys, values and states."""
    return sum(x.numel() * x.element_size() for x in _tensors(cache))


def _tensors(cache: Any) -> list[Tensor]:
    """All keys, values and states, [B, ...] each."""
    found: list[Tensor] = []
    for layer in cache.layers:
        values = [getattr(layer, name, None) for name in ("keys", "values")]
        states = [x for value in vars(layer).values() if isinstance(value, dict) for x in value.values()]
        found += [x for x in (*values, *states) if isinstance(x, Tensor)]
    return found


def has_state_layers(cache: Any) -> bool:
    """Whether some layer keeps a state (recurrence or convolution), which cannot step back by a token."""
    return any(has_recurrent_state(layer) for layer in cache.layers)


def crop_last_token(cache: Any) -> Any:
    """A branch without the last token; None where the cache no longer holds what came before it.

    That is the case for a full sliding window and for a state. The state of a convolution reports itself as
    croppable, but keeps no more than the next token needs.
    """
    if has_state_layers(cache) or not all(can_crop(layer) for layer in cache.layers):
        return None
    branch = branch_cache(cache)
    try:
        for layer in branch.layers:
            layer.crop(-1)
    except RuntimeError:  # what transformers raises for a full sliding window
        return None
    return branch


def shortened(cache: Any, tokens: int) -> Any:
    """A cache of the first tokens, which grows into memory of its own; None where a layer keeps other keys.

    Args:
        cache: stays unchanged.
        tokens: how many are kept.
    """
    short = copy.copy(cache)
    short.layers = []
    for layer in cache.layers:
        if type(layer) not in (DynamicLayer, PreallocatedLayer) or not layer.is_initialized:
            return None
        part = DynamicLayer()
        part.lazy_initialization(layer.keys, layer.values)
        part.keys, part.values = layer.keys[..., :tokens, :], layer.values[..., :tokens, :]
        short.layers.append(part)
    return short


def preallocate(cache: Any, tokens: int) -> Any:
    """A cache with memory for more tokens, which are then added without a copy of the rest.

    Layers of other kinds than the plain growing one stay as they are.

    Args:
        cache: stays unchanged.
        tokens: how many tokens the memory is for.
    """
    longer = copy.copy(cache)
    longer.layers = [
        PreallocatedLayer(layer, tokens) if type(layer) is DynamicLayer and layer.is_initialized else layer
        for layer in cache.layers
    ]
    return longer


class PreallocatedLayer(DynamicLayer):
    """Keys and values [B, H, L, D] that are the beginning of longer tensors, shared by all branches."""

    def __init__(self, layer: DynamicLayer, tokens: int) -> None:
        super().__init__()
        keys: Any = layer.keys
        values: Any = layer.values
        self.lazy_initialization(keys, values)
        self._memory = [pad(states, (0, 0, 0, tokens)) for states in (keys, values)]
        self._show(keys.shape[-2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if end > self._memory[0].shape[-2]:
            return super().update(key_states, value_states, *args, **kwargs)
        for memory, states in zip(self._memory, (key_states, value_states), strict=True):
            memory[..., begin:end, :] = states
        return self._show(end)

    def reorder_cache(self, beam_idx: Any) -> None:
        """Rows at these indices, each as often as it is named, in memory of their own."""
        length = self.get_seq_length()
        self._memory = [memory.index_select(0, beam_idx.to(memory.device)) for memory in self._memory]
        self._show(length)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (memory[..., :length, :] for memory in self._memory)
        return self.keys, self.values
