"""Benchmarks from files: the one that ships, MMAU and MMAR, and your own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError
from .collection import Items
from .hub import hub_records, is_dataset
from .mapping import FieldMapping, read_mapping, shipped_mappings
from .reading import read_records

__all__ = ["DOWNLOADS", "SHIPPED", "load_benchmark", "locate"]

SHIPPED = {"listening": Path(__file__).parent / "listening" / "listening.json"}
DOWNLOADS = {
    "mmau": "github.com/Sakshi113/MMAU (mmau-test-mini.json)",
    "mmar": "github.com/ddlBoJack/MMAR (MMAR-meta.jsonl)",
}


def load_benchmark(
    name_or_path: str | Path,
    path: str | Path | None = None,
    audio_root: str | Path | None = None,
    subset: str | None = None,
    fields: Mapping[str, Any] | str | Path | None = None,
) -> Items:
    """The items of a benchmark; those that cannot be scored are named in ``.excluded``.

    No sound is decoded yet: `Items.vetted` does that.

    Args:
        name_or_path: ``"listening"``, which ships; a file; a folder that `datasets` saved, or the name of a
            dataset on the Hugging Face hub as ``"hf:owner/name"``; or, with ``path``, any name: ``"mmau"``,
            ``"mmar"``, or that of a mapping that ships (``mmsu``, ``mmau-pro``, ``air-bench``, ``mcr-bench``,
            ``alme``), which is then used.
        path: the data file: ``.json`` (a list of records), ``.jsonl``, or ``.csv`` with a header, with the
            columns of MMAU (``id, audio_id, question, choices, answer, task, sub-category, split, ...``) or
            of MMAR (``audio_path, modality, url``), and optionally ``condition, caption, caption_answer``.
            In a CSV, ``choices`` is a JSON list or has ``|`` between the options. Or a dataset, as above.
        audio_root: the folder that the audio paths start from and may not leave; the file's own if not given.
            The sounds that a dataset holds itself are unpacked there, or into the cache of `datasets`.
        subset: only the records with this ``split``; of a dataset, the split.
        fields: field of `Item` -> column of the file, where it goes by another name. Or a whole mapping
            (`mapping` tells its forms), as a dict, a JSON file, or the name of one that ships.

    An item with a repeated or an empty choice is left out, though official scores count it: without the
    repetition it would be another question, with other letters and another level of chance.

    Raises:
        BenchmarkError: no such file, name, subset or column, or a file that cannot be read.

    Examples:
        >>> items = load_benchmark("mine.jsonl", fields={"question": "prompt"})  # doctest: +SKIP
    """
    file = locate(name_or_path, path)
    name = Path(name_or_path).stem if path is None else str(name_or_path)
    mapping = _mapping(name_or_path, fields)
    if is_dataset(file):
        records, root, digest = hub_records(str(file), subset, audio_root)
    else:
        root, file = file.parent if audio_root is None else audio_root, Path(file)
        try:
            data = file.read_bytes()
        except OSError as error:
            raise BenchmarkError(f"Benchmark {name!r}: {str(file)!r} cannot be read: {error}") from error
        records, digest = read_records(file, data), hashlib.sha256(data).hexdigest()
        if subset is not None:
            column = (mapping.fields if mapping else {}).get("split", "split")
            records = _subset(records, subset, column, file)
    return replace(_items(records, name, root, mapping, file), sha256=digest)


def _items(
    records: list[Any], name: str, root: str | Path, mapping: FieldMapping | None, file: Path
) -> Items:
    if mapping is None:
        return Items.of(records, name, root)
    if mapping.renames:
        mapping.check_columns(records, file)
        return Items.of(records, name, root, {key: str(column) for key, column in mapping.fields.items()})
    made, excluded = mapping.items(records, root, file)
    items = Items.of(made, name)
    return replace(items, excluded=(*excluded, *items.excluded))


def _mapping(name_or_path: str | Path, fields: Mapping[str, Any] | str | Path | None) -> FieldMapping | None:
    if isinstance(fields, Mapping):
        return FieldMapping.of(fields) if fields else None
    if fields is None and str(name_or_path) in shipped_mappings():
        return read_mapping(str(name_or_path))
    return None if fields is None else read_mapping(fields)


def locate(name_or_path: str | Path, path: str | Path | None = None) -> Path:
    """Where a benchmark is: a file, or a dataset (`is_dataset`); BenchmarkError if it does not ship."""
    if path is not None:
        return Path(path).expanduser()
    if str(name_or_path) in SHIPPED:
        return SHIPPED[str(name_or_path)]
    if str(name_or_path) in DOWNLOADS:
        where = DOWNLOADS[str(name_or_path)]
        raise BenchmarkError(f"{name_or_path} does not ship: download it from {where} and give path=.")
    if str(name_or_path) in shipped_mappings():
        where = read_mapping(str(name_or_path)).source
        raise BenchmarkError(f"{name_or_path} does not ship: download it from {where} and give path=.")
    file = Path(name_or_path).expanduser()
    if not file.suffix and not file.exists() and not is_dataset(file):
        known = ", ".join([*SHIPPED, *DOWNLOADS, *shipped_mappings()])
        raise BenchmarkError(f"No benchmark {str(name_or_path)!r}: give one of {known}, or a file.")
    return file


def _subset(records: list[Any], subset: str, column: str, file: Path) -> list[Any]:
    splits = [record.get(column) if isinstance(record, Mapping) else None for record in records]
    if subset not in splits:
        there = sorted({str(split) for split in splits if split})
        raise BenchmarkError(f"{str(file)!r} has no subset {subset!r}: it has {there}.")
    return [record for record, split in zip(records, splits, strict=True) if split == subset]
