"""Going on from one cache many times: branches that leave the cache as it is and copy next to nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

__all__ = ["branch", "crop_last_token", "knows_positions", "positions_behind", "preallocate", "remembers"]


def knows_positions(cache: Any, positions: Tensor | None) -> Any:
    """The same cache, told the positions that a model called its decoder with for the whole prompt.

    Multimodal rotary positions are made from the whole prompt; some models keep what they need to go on from
    a cache in themselves, from whatever prompt came last, so that they have to be told.
    """
    cache.prompt_positions = positions
    return cache


def positions_behind(cache: Any, first: int, count: int) -> dict[str, Tensor]:
    """``position_ids`` of ``count`` tokens, of which the first is so far behind the prompt's last (0: it).

    Nothing where the decoder counts its positions itself.
    """
    positions = getattr(cache, "prompt_positions", None)
    if positions is None:
        return {}
    ahead = torch.arange(first, first + count, device=positions.device)
    return {"position_ids": positions[..., -1:] + ahead}


def branch(cache: Any) -> Any:
    """A cache that goes on from this one and leaves it as it is.

    Dynamic layers grow into new tensors, so that copies of the layer objects suffice; what a recurrence or a
    convolution remembers is overwritten in its place, and copied. Branches of a cache with room write to the
    same place: use one after the other, not in turns.
    """
    grown = copy.copy(cache)
    grown.layers = [
        _remembering(layer) if isinstance(layer, LinearAttentionCacheLayerMixin) else copy.copy(layer)
        for layer in cache.layers
    ]
    return grown


def _remembering(layer: Any) -> Any:
    """A copy of the layer whose states are its own; keys and values it may also hold grow as elsewhere."""
    own = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):  # one entry for each state
            setattr(own, name, {i: x.clone() if isinstance(x, Tensor) else x for i, x in value.items()})
    return own


def remembers(cache: Any) -> bool:
    """Whether some layer keeps a state, of a recurrence or a convolution: it cannot step back by a token."""
    return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers)


def crop_last_token(cache: Any) -> Any:
    """The cache without its last token; None where it has let go of what it held before.

    That is so of a full sliding window and of a state; that of a convolution calls itself croppable, but
    keeps no more than the next token needs.
    """
    if remembers(cache) or not all(layer.is_croppable for layer in cache.layers):
        return None
    back = branch(cache)
    try:
        for layer in back.layers:
            layer.crop(-1)
    except RuntimeError:  # what transformers raises for a full sliding window
        return None
    return back


def preallocate(cache: Any, room: int) -> Any:
    """The same cache with place for ``room`` more tokens, which are then added without a copy of the rest.

    Layers of other kinds than the plain growing one are left as they are.
    """
    roomy = copy.copy(cache)
    roomy.layers = [
        PreallocatedLayer(layer, room) if type(layer) is DynamicLayer and layer.is_initialized else layer
        for layer in cache.layers
    ]
    return roomy


class PreallocatedLayer(DynamicLayer):
    """Keys and values [B, H, L, D] that are the beginning of longer tensors, shared by all branches."""

    def __init__(self, layer: DynamicLayer, room: int) -> None:
        super().__init__()
        both: tuple[Any, Any] = (layer.keys, layer.values)
        self.lazy_initialization(*both)
        self._whole = [pad(states, (0, 0, 0, room)) for states in both]
        self._show(both[0].shape[-2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if end > self._whole[0].shape[-2]:
            return super().update(key_states, value_states, *args, **kwargs)
        for whole, states in zip(self._whole, (key_states, value_states), strict=True):
            whole[..., begin:end, :] = states
        return self._show(end)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (whole[..., :length, :] for whole in self._whole)
        return self.keys, self.values
