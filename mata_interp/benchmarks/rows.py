"""Rows of tables and datasets as records, whichever library they come from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ArgumentTypeError
from .values import quote

__all__ = ["as_record", "as_records", "described"]


def as_records(rows: Any) -> Iterable[Any]:
    """The rows of a pandas table or of a dataset of the datasets library; any other iterable as it is.

    Raises:
        ArgumentTypeError: it has no rows: a text, a path, a number, a dataset with several splits, ...
    """
    if _is_a("pandas", "DataFrame", rows):
        return rows.to_dict("records")
    if _has_splits(rows):
        raise ArgumentTypeError(f"the items are a dataset with the splits {quote(sorted(rows))}: give one.")
    if _is_a("datasets", "Dataset", rows) or _is_a("datasets", "IterableDataset", rows):
        from .hub import undecoded

        return undecoded(rows)
    if isinstance(rows, str | bytes | Path) or not isinstance(rows, Iterable):
        raise ArgumentTypeError(
            f"the items are {described(rows)}: give items, such as those of load_benchmark, or records."
        )
    return rows


def as_record(row: Any) -> Mapping[str, Any] | None:
    """One row as a record: a mapping, a row of pandas (``iterrows``, ``itertuples``); None if it is none."""
    if isinstance(row, Mapping):
        return None if _has_splits(row) else row
    series: Any = row[1] if isinstance(row, tuple) and len(row) == 2 else row  # iterrows(): (index, row)
    if _is_a("pandas", "Series", series) and all(isinstance(name, str) for name in series.index.tolist()):
        return series.to_dict()
    if isinstance(row, tuple) and hasattr(row, "_asdict"):
        return row._asdict()  # type: ignore[attr-defined]
    return None


def described(value: Any) -> str:
    """A value and its type, for messages."""
    return f"{quote(value)} ({type(value).__name__})"


def _has_splits(value: Any) -> bool:
    return _is_a("datasets", "DatasetDict", value) or _is_a("datasets", "IterableDatasetDict", value)


def _is_a(package: str, name: str, value: Any) -> bool:
    """Whether ``value`` is of a class of a package, which is not imported for that."""
    kind = getattr(sys.modules.get(package), name, None)
    return isinstance(kind, type) and isinstance(value, kind)
