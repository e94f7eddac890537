"""What the A/A run of a study found, as it stands in ``repeat.json``."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from pathlib import Path

from .schema import from_plain, read_versioned, write_versioned

__all__ = ["REPEAT", "Changes", "RepeatResult"]

REPEAT = "repeat.json"


@dataclass(frozen=True)
class Changes:
    """How many answers differ between two conditions.

    Attributes:
        items: Number of items that were answered under both.
        changed: Number whose answer differs.
        fixed, broken: Number that are wrong under the first and right under the second, and the reverse.
        largest_margin: Largest change of the log-probability difference, nats; NaN for generated answers.
    """

    items: int
    changed: int
    fixed: int
    broken: int
    largest_margin: float

    @property
    def churn(self) -> float:
        """Fraction of answers that differ; NaN without items."""
        return self.changed / self.items if self.items else nan


@dataclass(frozen=True)
class RepeatResult:
    """The baseline repeated at another batch size, beside MATA against the baseline.

    Attributes:
        batch_size: Batch size of the repetition.
        first_batch_size: Batch size of the run.
        repeat: What the repetition changes.
        mata: What MATA changes, on the same items.
    """

    batch_size: int
    first_batch_size: int
    repeat: Changes
    mata: Changes

    def save(self, path: str | Path) -> None:
        """Write ``repeat.json``; RunError if the file cannot be written."""
        write_versioned(Path(path), **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, path: str | Path) -> RepeatResult:
        """Read ``repeat.json``; RunError if it cannot be read or lacks a field."""
        content = read_versioned(Path(path))
        del content["version"]
        return from_plain(cls, content, path)
