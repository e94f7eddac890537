"""Decoded sounds are kept: a clip is asked about many times, and decoding it is most of a prompt's cost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .audio import Audio

__all__ = ["SoundCache"]


class SoundCache:
    """Sounds by key, those asked for last, up to ``limit`` bytes of samples in all."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[Hashable, Audio] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], Audio]) -> Audio:
        """The sound of ``key``, made if it is not there; if ``make`` raises, nothing is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += made.samples.nbytes
            while self._bytes > self._limit:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.samples.nbytes
        return made
