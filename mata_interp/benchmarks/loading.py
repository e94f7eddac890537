"""Load benchmarks: the one that ships, MMAU and MMAR, datasets of Hugging Face, and files of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError
from .collection import Items
from .guessing import guess_fields, missing_fields, unknown_columns
from .hub import hub_records, is_dataset, is_saved
from .mapping import FieldMapping, read_mapping, shipped_mappings
from .places import DOWNLOADS, data_file, downloaded, place_audio
from .reading import read_records
from .values import is_missing, quote

__all__ = ["SHIPPED", "file_at", "load_benchmark", "locate", "records_of"]

SHIPPED = {"listening": Path(__file__).parent / "listening" / "listening.json"}


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
        name_or_path: one of these, or with ``path`` any name:

            - ``"listening"``, which ships;
            - ``"mmau"`` or ``"mmar"``, if downloaded into the user's data folder or that of the environment
              variable ``MATA_DATA``; if not, the error says what to download and where to put it;
            - a data file;
            - a folder with the data file of MMAU or MMAR and its audio, or with a single data file and audio;
            - a folder that the datasets library saved, or ``"hf:owner/name"``, a dataset on its hub.

            With ``path``, the name of a shipped field mapping (``mmsu``, ``mmau-pro``, ``air-bench``,
            ``mcr-bench``, ``alme``) is used as ``fields``.
        path: a file, folder or dataset as above. A file is ``.json``, ``.jsonl``, ``.csv``, ``.tsv`` or
            ``.parquet``, or one of these with ``.gz``, with the columns of MMAU (``id, audio_id, question,
            choices, answer, task, sub-category, split, ...``) or of MMAR (``audio_path, modality, url``), and
            optionally ``condition, caption, caption_answer``. In a CSV, ``choices`` is a JSON list or has
            ``|`` between the options. Answers are texts of options or their letters.
        audio_root: folder that audio paths start from and may not leave. If omitted, the data file's own; of
            a folder, the one inside in which the files are found. Audio stored inside a dataset is written
            there, or into the cache of the datasets library.
        subset: only the records with this ``split``, by its name in the file; of a dataset, the split.
        fields: field of `Item` -> column of the file, where the file has another name for it; or a whole
            field mapping (see `mata_interp.benchmarks.mapping`) as a dict, a JSON file, or the name of a
            shipped one.

    An item with a repeated or an empty choice is left out, although official scores count it: without the
    repetition it would be another question, with other letters and another chance level.

    Raises:
        BenchmarkError: there is no such file, name, subset or column, or the file cannot be read; its columns
            have unknown names, and the message gives a guess at ``fields``.

    Examples:
        >>> items = load_benchmark("listening")
        >>> items
        <Items 'listening': 1800 items, 0 left out>
        >>> items[0].question, items[0].choices
        ('What is the first sound in the clip?', ('a tabla', 'a bass drum', 'a whoosh', 'a synth bass'))
        >>> items = load_benchmark("mine.jsonl", fields={"question": "prompt"})  # doctest: +SKIP
    """
    name = Path(name_or_path).expanduser().stem if path is None else str(name_or_path)
    mapping = _mapping(name_or_path, fields)
    audio = (mapping.fields if mapping else {}).get("audio")
    column = audio if isinstance(audio, str) else None
    loaded = records_of(locate(name_or_path, path), subset, audio_root, column)
    records = loaded.records
    if subset is not None and not loaded.is_dataset:
        column = (mapping.fields if mapping else {}).get("split", "split")
        records = _subset(records, subset, column, loaded.file)
    return replace(_items(records, name, loaded.root, mapping, loaded.file), sha256=loaded.sha256)


@dataclass(frozen=True)
class Found:
    """Records of a benchmark and where they come from.

    Attributes:
        records: the records.
        file: the data file, or the place of a dataset.
        root: folder that audio paths start from.
        sha256: hash of the file, or of the records of a dataset.
        is_dataset: whether the datasets library read it.
    """

    records: list[Any]
    file: Path
    root: str | Path
    sha256: str
    is_dataset: bool = False


def records_of(
    place: Path,
    subset: str | None = None,
    audio_root: str | Path | None = None,
    audio_column: str | None = None,
) -> Found:
    """The records at a place that `locate` returned; of a data file, those of all subsets.

    Raises:
        BenchmarkError: the file or dataset cannot be read.
    """
    file = file_at(place, subset)
    if file is None:
        records, root, digest = hub_records(str(place), subset, audio_root)
        return Found(records, place, root, digest, is_dataset=True)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BenchmarkError(f"{str(file)!r} cannot be read: {error.strerror or error}.") from error
    records, root = read_records(file, data), audio_root
    if root is None and file != place:
        root, records = place_audio(records, file.parent, audio_column)
    return Found(records, file, file.parent if root is None else root, hashlib.sha256(data).hexdigest())


def file_at(place: Path, subset: str | None = None) -> Path | None:
    """The data file at a place that `locate` returned; None if the datasets library has to read it.

    Raises:
        BenchmarkError: a folder holds several data files.
    """
    if not is_dataset(place):
        return place
    return data_file(place, subset) if place.is_dir() and not is_saved(place) else None


def _items(
    records: list[Any], name: str, root: str | Path, mapping: FieldMapping | None, file: Path
) -> Items:
    if mapping is None:
        _require_columns(records, file)
        return Items.from_records(records, name, root)
    if mapping.only_renames:
        mapping.check_columns(records, file)
        columns = {key: str(column) for key, column in mapping.fields.items()}
        return Items.from_records(records, name, root, columns)
    made, excluded = mapping.items(records, root, file)
    items = Items.from_records(made, name)
    return replace(items, excluded=(*excluded, *items.excluded))


def _require_columns(records: list[Any], file: Path) -> None:
    """Refuse records without a question or options, or with audio in a column of an unknown name."""
    missing = missing_fields(records)
    if set(missing) & {"question", "choices"} or (missing and "audio" in guess_fields(records)):
        raise BenchmarkError(unknown_columns(records, file, missing))


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
    if name in DOWNLOADS and not Path(name).exists():
        return downloaded(name)
    if name in shipped_mappings() and not Path(name).exists():
        source = read_mapping(name).source
        remedy = f"download it from {source} and give path=FILE with fields={name}."
        raise BenchmarkError(f"{name} does not ship: {remedy}")
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
        names = sorted({str(split) for split in splits if not is_missing(split) and split != ""})
        raise BenchmarkError(f"{str(file)!r} has no subset {subset!r}: it has {quote(names)}.")
    return [record for record, split in zip(records, splits, strict=True) if split == subset]
