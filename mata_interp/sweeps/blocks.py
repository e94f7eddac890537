"""How many configurations run at once: as many as fit into the memory that is free."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

__all__ = ["blocks", "rows_that_fit"]

Entry = TypeVar("Entry")

_SHARE = 8  # of the free memory one block may take this part
_COPIES = 8  # float32 tensors of the scores' size alive at once: scores, masks, edited, weights, the mix


def rows_that_fit(device: torch.device, batch: int, heads: int, slots: int, keys: int) -> int:
    """Configurations whose scores, [batch, heads, slots, keys] each, fit into a part of what is free."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, free // _SHARE // (4 * _COPIES * batch * heads * slots * keys))


def blocks(entries: Sequence[Entry], size: int) -> Iterator[Sequence[Entry]]:
    """Neighbours together, in blocks of like size."""
    number = -(-len(entries) // size)
    for i in range(number):
        yield entries[len(entries) * i // number : len(entries) * (i + 1) // number]
