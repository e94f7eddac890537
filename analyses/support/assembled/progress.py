"""Progress on a terminal and without one: a line when a minute has passed, and one at the end."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

__all__ = ["Progress"]


class Progress:
    """Report how much of a task is done.

    On a terminal this is a tqdm bar. Elsewhere one line is printed per ``interval`` and one at the end.

    Args:
        task: what is being done.
        total: number of units.
        interval: seconds between two lines without a terminal.
        stream: where to write; standard error by default.
    """

    def __init__(self, task: str, total: int, interval: float = 60, stream: TextIO | None = None) -> None:
        self.task, self.total, self.interval = task, total, interval
        self.stream = stream or sys.stderr
        self.done = 0
        self.note = ""
        self.started = self.printed = time.monotonic()
        self.bar = tqdm(total=total, desc=task, file=self.stream) if self.stream.isatty() else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add ``count`` finished units; ``note`` (e.g. the loss) is shown beside them."""
        self.done += count
        self.note = note or self.note
        if self.bar is not None:
            self.bar.set_postfix_str(self.note, refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.printed >= self.interval:
            self._print()

    def _print(self) -> None:
        self.printed = time.monotonic()
        seconds = self.printed - self.started
        left = (
            f", {seconds / self.done * (self.total - self.done):.0f} s left"
            if 0 < self.done < self.total
            else ""
        )
        note = f"; {self.note}" if self.note else ""
        print(
            f"{self.task}: {self.done} of {self.total}, {seconds:.0f} s{left}{note}",
            file=self.stream,
            flush=True,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        elif kind is None:
            self._print()
