"""What commands print: JSON for machines, plain tables for people; progress bars go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def print_json(value: Any) -> None:
    """``value`` as JSON on stdout; NaN and infinities become null."""
    from ..experiments.files import plain

    print(json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns in line: the first to the left, the others to the right."""
    from ..reporting.terminal import columns, pad

    widths = [max(columns(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        first, *rest = zip(row, widths, strict=True)
        cells = [pad(*first), *(" " * (width - columns(cell)) + cell for cell, width in rest)]
        print("  ".join(cells).rstrip())


def progress() -> bool:
    """Are there people at the other end, who want to see a bar?"""
    return sys.stderr.isatty()


@contextmanager
def resumable() -> Iterator[None]:
    """Tell whoever stops a long run that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise
