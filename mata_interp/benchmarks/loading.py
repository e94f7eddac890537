"""Load benchmarks: the one that ships, MMAU and MMAR, datasets of Hugging Face, and files of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError
from .collection import Items
from .hub import hub_records, is_dataset
from .mapping import FieldMapping, read_mapping, shipped_mappings
from .reading import read_records
from .values import is_missing, quote

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
    """Load the items of a benchmark; those that cannot be scored are named in ``.excluded``.

    No audio is decoded yet: `Items.drop_undecodable` does that.

    Args:
        name_or_path: ``"listening"``, which ships; a data file; a folder that the datasets library saved, or
            the name of a dataset on the Hugging Face hub as ``"hf:owner/name"``; or, with ``path``, any name:
            ``"mmau"``, ``"mmar"``, or the name of a shipped field mapping (``mmsu``, ``mmau-pro``,
            ``air-bench``, ``mcr-bench``, ``alme``), which is then used.
        path: the data file: ``.json``, ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet``, or one of these with
            ``.gz``, with the columns of MMAU (``id, audio_id, question, choices, answer, task, sub-category,
            split, ...``) or of MMAR (``audio_path, modality, url``), and optionally ``condition, caption,
            caption_answer``. In a CSV, ``choices`` is a JSON list or has ``|`` between the options. Or a
            dataset, as above.
        audio_root: folder that audio paths start from and may not leave; the data file's own if omitted.
            Audio stored inside a dataset is written there, or into the cache of the datasets library.
        subset: only the records with this ``split``, by its name in the file; of a dataset, the split.
        fields: field of `Item` -> column of the file, where the file has another name for it; or a whole
            field mapping (see `mata_interp.benchmarks.mapping`) as a dict, a JSON file, or the name of a
            shipped one.

    An item with a repeated or an empty choice is left out, although official scores count it: without the
    repetition it would be another question, with other letters and another chance level.

    Raises:
        BenchmarkError: there is no such file, name, subset or column, or the file cannot be read.

    Examples:
        >>> items = load_benchmark("listening")
        >>> items
        <Items 'listening': 1800 items, 0 left out>
        >>> items[0].question, items[0].choices
        ('What is the first sound in the clip?', ('a tabla', 'a bass drum', 'a whoosh', 'a synth bass'))
        >>> items = load_benchmark("mine.jsonl", fields={"question": "prompt"})  # doctest: +SKIP
    """
    file = locate(name_or_path, path)
    name = Path(name_or_path).stem if path is None else str(name_or_path)
    mapping = _mapping(name_or_path, fields)
    if is_dataset(file):
        records, root, digest = hub_records(str(file), subset, audio_root)
    else:
        root = file.parent if audio_root is None else audio_root
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
        return Items.from_records(records, name, root)
    if mapping.only_renames:
        mapping.check_columns(records, file)
        columns = {key: str(column) for key, column in mapping.fields.items()}
        return Items.from_records(records, name, root, columns)
    made, excluded = mapping.items(records, root, file)
    items = Items.from_records(made, name)
    return replace(items, excluded=(*excluded, *items.excluded))


def _mapping(name_or_path: str | Path, fields: Mapping[str, Any] | str | Path | None) -> FieldMapping | None:
    if isinstance(fields, Mapping):
        return FieldMapping.from_dict(fields) if fields else None
    if fields is None and str(name_or_path) in shipped_mappings():
        return read_mapping(str(name_or_path))
    return None if fields is None else read_mapping(fields)


def locate(name_or_path: str | Path, path: str | Path | None = None) -> Path:
    """Path of a benchmark's file or dataset (see `is_dataset`).

    Raises:
        BenchmarkError: the name is unknown, or its benchmark does not ship and no ``path`` is given.
    """
    if path is not None:
        return Path(path).expanduser()
    name = str(name_or_path)
    if name in SHIPPED:
        return SHIPPED[name]
    if name in (*DOWNLOADS, *shipped_mappings()):
        source = DOWNLOADS[name] if name in DOWNLOADS else read_mapping(name).source
        raise BenchmarkError(f"{name} does not ship: download it from {source} and give path=.")
    file = Path(name_or_path).expanduser()
    if not file.suffix and not file.exists() and not is_dataset(file):
        names = [*SHIPPED, *DOWNLOADS, *shipped_mappings()]
        close = get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]!r}? There are" if close else "give one of"
        raise BenchmarkError(f"No benchmark {quote(name)}: {hint} {', '.join(names)}, or a file.")
    return file


def _subset(records: list[Any], subset: str, column: str, file: Path) -> list[Any]:
    """The records with this split."""
    splits = [record.get(column) if isinstance(record, Mapping) else None for record in records]
    if subset not in splits:
        known = sorted({str(split) for split in splits if not is_missing(split) and split != ""})
        raise BenchmarkError(f"{str(file)!r} has no subset {subset!r}: it has {quote(known)}.")
    return [record for record, split in zip(records, splits, strict=True) if split == subset]
