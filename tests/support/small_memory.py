"""A model whose memory is small: its layers raise what torch raises, above so many rows or tokens."""

from __future__ import annotations

from typing import Any

import torch

ERRORS: dict[str, Any] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
}


class SmallMemory:
    """A hook on a decoder layer of a model, in force inside ``with``.

    Args:
        model: a transformers model.
        rows: most rows of a batch.
        tokens: most tokens of a row.
        error: which of ERRORS is raised.
        layer: index of the layer.

    Attributes:
        refused: how many passes did not fit.
    """

    def __init__(
        self, model: Any, rows: int = 10**9, tokens: int = 10**9, error: str = "cuda", layer: int = 1
    ) -> None:
        self._layer = model.get_decoder().layers[layer]
        self._rows, self._tokens, self._error, self.refused = rows, tokens, error, 0

    def __enter__(self) -> SmallMemory:
        self._handle = self._layer.register_forward_pre_hook(self._refuse, with_kwargs=True)
        return self

    def __exit__(self, *_: Any) -> None:
        self._handle.remove()

    def _refuse(self, module: Any, args: Any, kwargs: Any) -> None:
        states = kwargs.get("hidden_states", args[0] if args else None)
        if states.shape[0] > self._rows or states.shape[1] > self._tokens:
            self.refused += 1
            raise ERRORS[self._error]()
