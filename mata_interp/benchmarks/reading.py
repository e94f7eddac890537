"""Records from data files: JSON, JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from ..errors import BenchmarkError
from .values import is_missing, quote

__all__ = ["SUFFIXES", "mixed_columns", "read_records"]

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")


class _FormatError(ValueError):
    """What is wrong with the content of a file, without the file's name."""


def read_records(file: Path, data: bytes | None = None) -> list[Any]:
    """The records of a file, by its suffix.

    - ``.json``: a list of records, or an object with one list of records, such as ``{"data": [...]}``;
    - ``.jsonl``: one record a line; a JSON list is accepted too;
    - ``.csv`` and ``.tsv`` with a header; in a CSV without commas in its header, semicolons or tabs separate
      the cells. A column without a name, such as the index that pandas writes, is dropped;
    - ``.parquet``.

    Each may be compressed by gzip, with ``.gz`` after its suffix. Upper and lower case of suffixes is equal.

    Args:
        file: named in errors, and read unless ``data`` is given.
        data: content of the file.

    Raises:
        BenchmarkError: the file cannot be read, has another format, or holds no list of records.
    """
    name = file.name.lower()
    suffix = PurePath(name.removesuffix(".gz")).suffix
    if suffix not in _READERS:
        suffixes = ", ".join(SUFFIXES)
        raise BenchmarkError(
            f"{str(file)!r} is not a data file: its suffix must be one of {suffixes} (or .gz of one)."
        )
    try:
        data = file.read_bytes() if data is None else data
        records = _READERS[suffix](gzip.decompress(data) if name.endswith(".gz") else data)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise BenchmarkError(f"{str(file)!r} cannot be read: {_shorten(error)}") from error
    except _FormatError as error:
        raise BenchmarkError(f"{str(file)!r} holds no list of records: {error}") from error
    if not records:
        raise BenchmarkError(f"{str(file)!r} holds no list of records: it is empty.")
    return records


def _shorten(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= 300 else f"{text[:280]}..."


def _read_json(data: bytes) -> list[Any]:
    text = _decode(data)
    try:
        content = _parse(text)
    except json.JSONDecodeError:
        if text.lstrip().startswith("{") and "\n" in text.strip():  # JSON lines under the name .json?
            return [_parse(line) for line in text.split("\n") if line.strip()]
        raise
    if isinstance(content, Mapping):
        lists = [key for key, value in content.items() if _is_list_of_records(value)]
        if len(lists) != 1:
            problem = f"it is an object with the keys {quote(list(content))}"
            detail = "none holds one" if not lists else f"{quote(lists)} each hold one"
            raise _FormatError(f"{problem}, of which {detail}.")
        content = content[lists[0]]
    if not isinstance(content, list):
        raise _FormatError(f"it is {quote(content)}.")
    return content


def _is_list_of_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, Mapping) for part in value)


def _read_jsonl(data: bytes) -> list[Any]:
    text = _decode(data)
    if text.lstrip().startswith("["):
        return _read_json(data)
    return [_parse(line) for line in text.split("\n") if line.strip()]


def _read_csv(data: bytes, delimiter: str | None = None) -> list[Any]:
    text = _decode(data)
    if delimiter is None:
        header = text.split("\n", 1)[0]
        delimiters = [mark for mark in (";", "\t") if mark in header]
        delimiter = delimiters[0] if "," not in header and len(delimiters) == 1 else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = [name for name in reader.fieldnames or () if name.strip()]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise _FormatError(f"the header has {quote(repeated)} more than once.")
    return [{name: value for name, value in row.items() if name is None or name.strip()} for row in reader]


def _read_tsv(data: bytes) -> list[Any]:
    return _read_csv(data, "\t")


def _read_parquet(data: bytes) -> list[Any]:
    import pandas as pd
    import pyarrow as pa

    try:
        table = pd.read_parquet(io.BytesIO(data))
    except (pa.ArrowException, ValueError) as error:
        raise _FormatError(f"it is no Parquet file: {_shorten(error)}") from error
    return table.to_dict("records")


_READERS: dict[str, Callable[[bytes], list[Any]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}


def _decode(data: bytes) -> str:
    return data.decode("utf-8-sig")


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different; Python would keep the last of equal keys without notice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = [key for key, count in counts.items() if count > 1]
        raise _FormatError(f"the object {quote(content)} has the key {quote(repeated[0])} more than once.")
    return content


def mixed_columns(records: list[Any]) -> dict[str, dict[str, int]]:
    """Columns whose values are not all of one kind.

    Returns:
        Column -> kind of value (``"text"``, ``"number"``, ``"list"``, ..., or ``"missing"`` where the record
        has no such column) -> number of records.
    """
    objects = [record for record in records if isinstance(record, Mapping)]
    kinds: dict[str, Counter[str]] = {column: Counter() for record in objects for column in record}
    for record in objects:
        for column, counts in kinds.items():
            counts[_kind(record[column]) if column in record else "missing"] += 1
    return {column: dict(counts.most_common()) for column, counts in kinds.items() if len(counts) > 1}


def _kind(value: Any) -> str:
    return "null" if is_missing(value) else _KINDS.get(type(value), "other")


_KINDS = {str: "text", list: "list", dict: "object", bool: "true or false", int: "number", float: "number"}
