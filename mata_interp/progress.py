"""Progress on stderr: a bar in a terminal or notebook, one line a minute elsewhere.

The library and the command line use these functions alone. In a log file, the first line appears after a
minute, so that what is quick prints nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from tqdm.auto import tqdm

__all__ = ["Progress", "announce", "progress_bar", "rough_duration", "stage", "track"]

INTERVAL = 60.0  # seconds between two lines where there is no terminal

T = TypeVar("T")


class Progress(Protocol):
    """What `progress_bar` yields."""

    def update(self, n: float = 1) -> object:
        """Count ``n`` more units as done."""


@contextmanager
def progress_bar(
    label: str, total: int | None = None, unit: str = "item", show: bool = True, initial: int = 0
) -> Iterator[Progress]:
    """Show how much of a stage is done and how long the rest takes.

    Args:
        label: name of the stage.
        total: number of units in all; None where it is not known.
        unit: what is counted.
        show: False prints nothing.
        initial: units that were done before.

    Example:
        >>> with progress_bar("trace", total=3, show=False) as bar:
        ...     bar.update(3)
    """
    if not show:
        yield _Count(label, total, unit, initial)
    elif _draws_bars():
        with tqdm(total=total, initial=initial, desc=label, unit=unit) as bar:
            yield bar
    else:
        with _lines.showing(_Count(label, total, unit, initial)) as count:
            yield count


def track(entries: Iterable[T], label: str, unit: str = "item", show: bool = True) -> Iterator[T]:
    """The entries one after the other, with `progress_bar` around them.

    Example:
        >>> list(track([1, 2], "checking items", show=False))
        [1, 2]
    """
    total = len(entries) if hasattr(entries, "__len__") else None  # type: ignore[arg-type]
    with progress_bar(label, total, unit, show) as bar:
        for entry in entries:
            yield entry
            bar.update(1)


@contextmanager
def stage(label: str, show: bool = True) -> Iterator[None]:
    """Name the stage that the bars inside belong to; where lines are printed, each begins with its name.

    A stage without a bar of its own is reported as well, with the time it has taken so far.
    """
    if not show or _draws_bars():
        yield
        return
    with _lines.showing(_Count(label)):
        yield


def announce(message: str, show: bool = True) -> None:
    """Print a message to stderr, such as a forecast, without breaking a bar."""
    if show:
        with suppress(ValueError, OSError):  # stderr is closed
            tqdm.write(message, file=sys.stderr)


def rough_duration(seconds: float) -> str:
    """A duration with two significant digits.

    >>> rough_duration(9000)
    '2.5 hours'
    """
    units = (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
    unit, length = next((one for one in units if seconds >= 2 * one[1]), units[-1])
    rounded = float(f"{seconds / length:.2g}")
    return f"{rounded:g} {unit}"


def _draws_bars() -> bool:
    """Whether stderr is a terminal or the code runs in a notebook."""
    with suppress(AttributeError, ValueError):
        if sys.stderr.isatty():
            return True
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


@dataclass(eq=False)
class _Count:
    """How far a stage is.

    Attributes:
        label, total, unit, done: as in `progress_bar`.
    """

    label: str
    total: int | None = None
    unit: str = "item"
    done: float = 0
    before: float = field(init=False)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.before, self.started = self.done, time.monotonic()

    def update(self, n: float = 1) -> None:
        self.done += n

    def __str__(self) -> str:
        elapsed = time.monotonic() - self.started
        if self.total is None:
            return f"{self.label}: {rough_duration(elapsed)} so far"
        text = f"{self.label}: {self.done:g} of {self.total} {self.unit}s"
        new = self.done - self.before
        if new <= 0:
            return f"{text}, {rough_duration(elapsed)} so far"
        left = elapsed / new * max(self.total - self.done, 0)
        return f"{text}, about {rough_duration(left)} left"


class _Lines:
    """Prints a line about the innermost stage every `INTERVAL`, from a thread that lives as long as it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stack: list[_Count] = []
        self._last: float | None = None  # when the last line was printed, or the first stage began
        self._idle: float | None = None  # when the last stage ended, while there is none
        self._ended: threading.Event | None = None

    @contextmanager
    def showing(self, count: _Count) -> Iterator[_Count]:
        """Report ``count`` until the block ends."""
        with self._lock:
            now = time.monotonic()
            if self._last is None:
                self._last = now
            elif self._idle is not None:  # time without any stage does not count
                self._last += now - self._idle
            self._idle = None
            self._stack.append(count)
            if self._ended is None:
                self._ended = threading.Event()
                arguments = (self._ended,)
                threading.Thread(target=self._report, args=arguments, daemon=True, name="progress").start()
        try:
            yield count
        finally:
            with self._lock:
                self._stack.remove(count)
                if not self._stack:
                    self._idle = time.monotonic()
                if not self._stack and self._ended is not None:
                    self._ended.set()
                    self._ended = None

    def _report(self, ended: threading.Event) -> None:
        while not ended.wait(max(0.0, (self._last or 0.0) + INTERVAL - time.monotonic())):
            with self._lock:
                if ended.is_set() or not self._stack:
                    continue
                self._last = time.monotonic()
                outer = [count.label for count in self._stack[:-1]]
                line = ": ".join([*outer, str(self._stack[-1])])
            announce(f"[{time.strftime('%H:%M')}] {line}")


_lines = _Lines()
