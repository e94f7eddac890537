"""One user of a model at a time: a lock for each decoder, and the state that a model has while it is used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from torch import nn

from mata_interp.precision import full_precision

from .model_state import ready

__all__ = ["belongs_to", "exclusive", "is_exclusive_here"]


class _Use:
    """Who uses a decoder.

    Attributes:
        lock: held by the thread that uses it.
        depth: how often that thread has entered.
        thread: its identifier.
        model: the whole model around it, where one is known.
    """

    def __init__(self) -> None:
        self.lock, self.depth = threading.RLock(), 0
        self.thread: int | None = None
        self.model: ReferenceType[Any] | None = None


_guard = threading.Lock()
_uses: WeakKeyDictionary[nn.Module, _Use] = WeakKeyDictionary()


def _use_of(decoder: nn.Module) -> _Use:
    with _guard:
        return _uses.setdefault(decoder, _Use())


def belongs_to(decoder: nn.Module, model: nn.Module) -> None:
    """Say which model a decoder is part of: `exclusive` takes care of the state of the whole of it."""
    _use_of(decoder).model = ref(model)


def is_exclusive_here(decoder: nn.Module) -> bool:
    """Whether this thread is inside `exclusive` for a decoder: this package runs it."""
    use = _uses.get(decoder)
    return use is not None and use.thread == threading.get_ident()


@contextmanager
def exclusive(decoder: nn.Module) -> Iterator[None]:
    """Inside, no other thread runs or intercepts this decoder through this package.

    Its model is `ready`, and computes in `full_precision`.

    The lock belongs to the decoder, so that all wrappers of one model share it, and one thread may take it
    several times. Other models are not held up. A thread that calls the model directly is not held up
    either: hooks and interceptions of this package ignore the calls of other threads.
    """
    use = _use_of(decoder)
    with use.lock, full_precision():
        model = use.model() if use.model is not None and use.depth == 0 else None
        use.depth += 1
        use.thread = threading.get_ident()
        try:
            if model is None:
                yield
            else:
                with ready(model, decoder):
                    yield
        finally:
            use.depth -= 1
            use.thread = use.thread if use.depth else None
