"""Benchmarks from files: the one that ships, MMAU and MMAR, and your own."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError
from .collection import Items
from .records import COLUMNS

__all__ = ["load_benchmark"]

SHIPPED = {"listening": Path(__file__).parent / "listening" / "listening.json"}
_KNOWN = {
    "mmau": "github.com/Sakshi113/MMAU (mmau-test-mini.json)",
    "mmar": "github.com/ddlBoJack/MMAR (MMAR-meta.jsonl)",
}


def load_benchmark(
    name_or_path: str | Path,
    path: str | Path | None = None,
    audio_root: str | Path | None = None,
    subset: str | None = None,
    fields: Mapping[str, str] | None = None,
) -> Items:
    """The items of a benchmark; those that cannot be scored are named in ``.excluded``.

    No sound is decoded yet: `Items.vetted` does that.

    Args:
        name_or_path: ``"listening"``, which ships; a file; or, with ``path``, any name, such as ``"mmau"``.
        path: the data file: ``.json`` (a list of records), ``.jsonl``, or ``.csv`` with a header, with the
            columns of MMAU (``id, audio_id, question, choices, answer, task, sub-category, split, ...``) or
            of MMAR (``audio_path, modality, url``), and optionally ``condition, caption, caption_answer``.
            In a CSV, ``choices`` is a JSON list or has ``|`` between the options.
        audio_root: the folder that the audio paths start from and may not leave; the file's own if not given.
        subset: only the records with this ``split``.
        fields: field of `Item` -> column of the file, where it goes by another name.

    Raises:
        BenchmarkError: no such file, name, subset or column, or a file that cannot be read.

    Examples:
        >>> items = load_benchmark("mine.jsonl", fields={"question": "prompt"})  # doctest: +SKIP
    """
    file = _file(name_or_path, path)
    name = Path(name_or_path).stem if path is None else str(name_or_path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BenchmarkError(f"Benchmark {name!r}: {str(file)!r} cannot be read: {error}") from error
    records = _records(data, file)
    _check_fields(records, fields or {}, file)
    if subset is not None:
        records = _subset(records, subset, (fields or {}).get("split", "split"), file)
    items = Items.of(records, name, file.parent if audio_root is None else audio_root, fields)
    return replace(items, sha256=hashlib.sha256(data).hexdigest())


def _file(name_or_path: str | Path, path: str | Path | None) -> Path:
    if path is not None:
        return Path(path).expanduser()
    if str(name_or_path) in SHIPPED:
        return SHIPPED[str(name_or_path)]
    if str(name_or_path) in _KNOWN:
        where = _KNOWN[str(name_or_path)]
        raise BenchmarkError(f"{name_or_path} does not ship: download it from {where} and give path=.")
    file = Path(name_or_path).expanduser()
    if not file.suffix and not file.exists():
        known = ", ".join([*SHIPPED, *_KNOWN])
        raise BenchmarkError(f"No benchmark {str(name_or_path)!r}: give one of {known}, or a file.")
    return file


def _records(data: bytes, file: Path) -> list[Any]:
    """The records of a JSON, JSON lines or CSV file."""
    try:
        text = data.decode("utf-8-sig")
        if file.suffix == ".json":
            records = json.loads(text)
        elif file.suffix == ".jsonl":
            records = [json.loads(line) for line in text.split("\n") if line.strip()]
        elif file.suffix == ".csv":
            records = list(csv.DictReader(io.StringIO(text, newline="")))
        else:
            raise BenchmarkError(f"{str(file)!r} is neither .json nor .jsonl nor .csv.")
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise BenchmarkError(f"{str(file)!r} cannot be read: {error}") from error
    if not isinstance(records, list) or not records:
        raise BenchmarkError(f"{str(file)!r} holds no list of records.")
    return records


def _check_fields(records: list[Any], fields: Mapping[str, str], file: Path) -> None:
    columns = {column for record in records if isinstance(record, Mapping) for column in record}
    for field, column in fields.items():
        if field not in COLUMNS:
            raise BenchmarkError(f"An item has no field {field!r}: choose among {', '.join(COLUMNS)}.")
        if column not in columns:
            raise BenchmarkError(f"{str(file)!r} has no column {column!r}: it has {sorted(columns)}.")


def _subset(records: list[Any], subset: str, column: str, file: Path) -> list[Any]:
    splits = [record.get(column) if isinstance(record, Mapping) else None for record in records]
    if subset not in splits:
        there = sorted({str(split) for split in splits if split})
        raise BenchmarkError(f"{str(file)!r} has no subset {subset!r}: it has {there}.")
    return [record for record, split in zip(records, splits, strict=True) if split == subset]
