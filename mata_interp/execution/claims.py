"""Which process computes which unit, where several work on one run folder.

The process that computes unit n locks byte n of a lock file. The operating system releases the lock when the
process ends, in whatever way, so that there is nothing to time out or to clean up. A claim only saves work:
if two processes compute one unit (on a file system without locks, or in two threads), they write the same
part, and the second replaces the first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["UnitClaims"]


class UnitClaims:
    """The lock file of a folder, open in this process; a context manager that releases all claims.

    Args:
        path: The file; None: nobody else works on these units, and every claim succeeds.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: int | None = None

    def __enter__(self) -> UnitClaims:
        if fcntl is not None and self._path is not None:
            with contextlib.suppress(OSError):  # then there are no claims
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def claim(self, unit: int, wait: bool = False) -> bool:
        """Claim a unit; False if another process has it, unless ``wait`` says to wait for its release."""
        if fcntl is None or self._file is None:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, unit)
        except (BlockingIOError, PermissionError):  # held by another process
            return False
        except OSError:  # no locks on this file system
            return True
        return True

    def one_by_one(self, units: Iterable[Any]) -> Iterator[Any]:
        """Yield every unit while it is claimed: first the free ones, then the others as they are released."""
        later: list[Any] = []
        for unit in units:
            if not self.claim(unit.number):
                later.append(unit)
                continue
            yield unit
            self.release(unit.number)
        for unit in later:
            self.claim(unit.number, wait=True)
            yield unit
            self.release(unit.number)

    def release(self, unit: int) -> None:
        """Release a claim."""
        if fcntl is not None and self._file is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, unit)

    def remove(self) -> None:
        """Remove the lock file of a finished run; processes that have it open keep using it."""
        with contextlib.suppress(OSError):
            if self._path is not None:
                self._path.unlink(missing_ok=True)
