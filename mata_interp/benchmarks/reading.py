"""Records from data files: JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError

__all__ = ["odd_fields", "read_records"]


def read_records(file: Path, data: bytes | None = None) -> list[Any]:
    """The records of a file, by its suffix: ``.json`` (a list), ``.jsonl`` or ``.csv`` with a header.

    Args:
        file: read, unless ``data`` is given, and named in errors.
        data: the file's content.

    Raises:
        BenchmarkError: it cannot be read, or holds no list of records.
    """
    try:
        text = (file.read_bytes() if data is None else data).decode("utf-8-sig")
        if file.suffix == ".json":
            records = json.loads(text)
        elif file.suffix == ".jsonl":
            records = [json.loads(line) for line in text.split("\n") if line.strip()]
        elif file.suffix == ".csv":
            records = list(csv.DictReader(io.StringIO(text, newline="")))
        else:
            raise BenchmarkError(f"{str(file)!r} is neither .json nor .jsonl nor .csv.")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise BenchmarkError(f"{str(file)!r} cannot be read: {error}") from error
    if not isinstance(records, list) or not records:
        raise BenchmarkError(f"{str(file)!r} holds no list of records.")
    return records


def odd_fields(records: list[Any]) -> dict[str, dict[str, int]]:
    """Columns whose values are not all of one kind: column -> kind, or ``"missing"`` -> number of records."""
    good = [record for record in records if isinstance(record, Mapping)]
    kinds: dict[str, Counter[str]] = {column: Counter() for record in good for column in record}
    for record in good:
        for column, counts in kinds.items():
            counts[_KINDS.get(type(record[column]), "other") if column in record else "missing"] += 1
    return {column: dict(counts.most_common()) for column, counts in kinds.items() if len(counts) > 1}


_KINDS = {str: "text", list: "list", dict: "object", type(None): "null", bool: "true or false"}
_KINDS |= {int: "number", float: "number"}
