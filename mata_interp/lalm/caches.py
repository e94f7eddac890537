"""Going on from one cache many times: branches that leave the cache as it is and copy next to nothing."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer

__all__ = ["branch", "with_room"]


def branch(cache: Any) -> Any:
    """A cache that goes on from this one and leaves it as it is.

    Dynamic layers grow into new tensors, so that copies of the layer objects suffice. Branches of a cache
    with room write to the same place: use one after the other, not in turns.
    """
    grown = copy.copy(cache)
    grown.layers = [copy.copy(layer) for layer in cache.layers]
    return grown


def with_room(cache: Any, room: int) -> Any:
    """The same cache with place for ``room`` more tokens, which are then added without a copy of the rest.

    Layers of other kinds than the plain growing one are left as they are.
    """
    roomy = copy.copy(cache)
    roomy.layers = [
        _Roomy(layer, room) if type(layer) is DynamicLayer and layer.is_initialized else layer
        for layer in cache.layers
    ]
    return roomy


class _Roomy(DynamicLayer):
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
