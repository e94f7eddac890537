"""Visibility and bias of some queries, computed once for all layers that share the mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from .call import AttentionCall

__all__ = ["RowMask", "SharedMasks"]

KEPT = 4  # row masks: layers with and without a sliding window take turns


class RowMask(NamedTuple):
    """The keys that some queries see, and what the mask adds to their scores.

    Attributes:
        visible: bool [B|1, 1|H, R, L], the keys that each of them sees; None: all.
        added: float32 of the same shape, added to the scores: the mask's bias, -inf where hidden; None:
            nothing.
    """

    visible: Tensor | None
    added: Tensor | None


class SharedMasks:
    """The row masks of a pass, computed once for all layers that get the same mask object."""

    def __init__(self) -> None:
        # with the mask itself, so that no other tensor can take its identity
        self._entries: list[tuple[Tensor | None, tuple, RowMask]] = []

    def of(self, call: AttentionCall, rows: slice) -> RowMask:
        """``call.row_mask(rows)``."""
        about = (rows.start, rows.stop, call.query.shape[2], call.length, call.window, call.key.device)
        for mask, key, row_mask in self._entries:
            if mask is call.mask and key == about:
                return row_mask
        row_mask = call.row_mask(rows)
        self._entries = [*self._entries[1 - KEPT :], (call.mask, about, row_mask)]
        return row_mask
