"""The most memory that tensors hold at once, counted operation by operation.

Unlike the resident memory of the process, it does not depend on the allocator, on threads or on how busy the
machine is: the same code counts the same bytes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class CountedMemory(TorchDispatchMode):
    """Inside, every storage that an operation returns is counted for as long as it lives.

    Attributes:
        peak: bytes.
    """

    def __init__(self, known: torch.nn.Module) -> None:
        super().__init__()
        tensors = [*known.parameters(), *known.buffers()]
        self._addresses = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self._live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self._addresses or not size:
            return
        self._addresses.add(address)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self._addresses.discard(address)
        self._live -= size


def counted_peak(model: torch.nn.Module, run: Callable[[], object]) -> int:
    """The most bytes that tensors hold at once in ``run()``, the model's own aside."""
    with CountedMemory(model) as memory:
        run()
    return memory.peak
