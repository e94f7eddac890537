"""Benchmarks that are datasets of the Hugging Face datasets library: by name, or in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError
from .values import quote

__all__ = ["hub_records", "is_dataset", "is_saved", "undecoded"]

_PREFIX = "hf:"


def is_dataset(place: str | Path) -> bool:
    """Whether ``place`` is a folder or, by its prefix ``hf:``, the name of a dataset on the hub."""
    return str(place).startswith(_PREFIX) or Path(place).is_dir()


def is_saved(place: str | Path) -> bool:
    """Whether ``place`` is a folder that ``save_to_disk`` of the datasets library wrote."""
    return any((Path(place) / mark).is_file() for mark in ("state.json", "dataset_dict.json"))


def hub_records(
    place: str, split: str | None, audio_root: str | Path | None = None
) -> tuple[list[dict[str, Any]], Path, str]:
    """The records of a dataset, with paths in its audio columns.

    Audio is not decoded (the datasets library would need torchcodec for that): audio stored inside the
    dataset is written, unchanged, to files named by their SHA-256. Any path must lie in the folder, as
    always.

    Args:
        place: a folder that ``save_to_disk`` wrote, any other folder that ``load_dataset`` can read, or
            ``hf:owner/name``.
        split: split of the dataset; needed if there are several.
        audio_root: folder that paths start from and that audio is written to.

    Returns:
        The records, the folder that their paths start from, and a SHA-256 of the records.

    Raises:
        BenchmarkError: the dataset cannot be loaded or is empty, or it has several splits and none is chosen.
    """
    import datasets
    from datasets.config import HF_DATASETS_CACHE

    data = _load(place, split)
    audio_columns = [key for key, kind in data.features.items() if isinstance(kind, datasets.Audio)]
    for column in audio_columns:
        data = data.cast_column(column, datasets.Audio(decode=False))
    cache, folder = Path(HF_DATASETS_CACHE), Path(place)
    root = None if audio_root is None else Path(audio_root).expanduser()
    written_to = (root or cache / "mata_interp").resolve()
    records, stored_inside = [], False
    for record in map(dict, data):  # one at a time: all audio at once may not fit into memory
        for column in audio_columns:
            stored_inside |= bool(record[column] and record[column]["bytes"])
            record[column] = _path(record[column], written_to)
        records.append(record)
    if stored_inside or root is not None:
        start = written_to
    else:
        start = (folder if folder.is_dir() else cache).resolve()
    digest = hashlib.sha256()
    for record in records:
        record |= {column: _relative_to(start, record[column]) for column in audio_columns}
        digest.update(repr(sorted(record.items())).encode())
    if not records:
        raise BenchmarkError(f"The dataset {place!r} is empty.")
    return records, start, digest.hexdigest()


def undecoded(data: Any) -> Iterator[dict[str, Any]]:
    """The records of a dataset in memory, with paths in its audio columns.

    Audio inside the dataset is written, unchanged, into the cache of the datasets library.

    Args:
        data: a ``Dataset`` or ``IterableDataset``.
    """
    import datasets
    from datasets.config import HF_DATASETS_CACHE

    features = data.features or {}
    columns = [name for name, kind in features.items() if isinstance(kind, datasets.Audio)]
    for column in columns:
        data = data.cast_column(column, datasets.Audio(decode=False))
    written_to = (Path(HF_DATASETS_CACHE) / "mata_interp").resolve()
    for record in map(dict, data):
        for column in columns:
            if (name := _path(record[column], written_to)) is not None:
                stored = bool(record[column]["bytes"])
                record[column] = str(written_to / name) if stored else name
            else:
                record[column] = None
        yield record


def _load(place: str, split: str | None) -> Any:
    """One split of a dataset."""
    import datasets

    name = place.removeprefix(_PREFIX)
    try:
        data = datasets.load_from_disk(place) if is_saved(place) else datasets.load_dataset(name)
    except Exception as error:  # of many kinds: no such name, no network, no data files, ...
        reason = str(error.__cause__ or error)[:500]
        raise BenchmarkError(f"The dataset {place!r} cannot be loaded: {reason}") from error
    if isinstance(data, dict):
        if split is None and len(data) > 1:
            raise BenchmarkError(
                f"The dataset {place!r} has the splits {quote(sorted(data))}: give one as subset."
            )
        chosen = split or next(iter(data))
        if chosen not in data:
            raise BenchmarkError(
                f"The dataset {place!r} has no split {chosen!r}: it has {quote(sorted(data))}."
            )
        return data[chosen]
    if split is not None and str(data.split) != split:
        raise BenchmarkError(f"The dataset {place!r} has no split {split!r}: it is {str(data.split)!r}.")
    return data


def _path(audio: dict[str, Any] | None, written_to: Path) -> str | None:
    """Path of an audio value: its own, or that of a new file in ``written_to`` with its bytes."""
    if audio is None:
        return None
    if audio["bytes"] is None:
        return audio["path"]
    name = hashlib.sha256(audio["bytes"]).hexdigest()[:32] + (Path(audio["path"] or "").suffix or ".wav")
    if not (written_to / name).exists():
        written_to.mkdir(parents=True, exist_ok=True)
        part = written_to / f"{name}.{os.getpid()}.part"
        part.write_bytes(audio["bytes"])
        part.replace(written_to / name)  # so that no other process sees half of a file
    return name


def _relative_to(root: Path, path: str | None) -> str | None:
    """A path relative to ``root`` if it is inside, so that records are the same wherever the folder is."""
    if path and Path(path).is_absolute() and Path(path).resolve().is_relative_to(root):
        return str(Path(path).resolve().relative_to(root))
    return path
