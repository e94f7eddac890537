"""One user of a model at a time: a lock for each decoder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

from mata_interp.precision import full_precision

__all__ = ["exclusive"]

_guard = threading.Lock()
_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()


@contextmanager
def exclusive(decoder: nn.Module) -> Iterator[None]:
    """Inside, no other thread runs or intercepts this decoder through this package, in full precision.

    The lock belongs to the decoder, so that all wrappers of one model share it, and one thread may take it
    several times. Other models are not held up. A thread that calls the model directly is not held up
    either: hooks and interceptions of this package ignore the calls of other threads.
    """
    with _guard:
        lock = _locks.setdefault(decoder, threading.RLock())
    with lock, full_precision():
        yield
