"""Benchmarks that are datasets of Hugging Face: by name, or in a folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError

__all__ = ["hub_records", "is_dataset"]

_PREFIX = "hf:"


def is_dataset(place: str | Path) -> bool:
    """Whether a place is a folder or, by its ``hf:``, a name on the hub."""
    return str(place).startswith(_PREFIX) or Path(place).is_dir()


def hub_records(
    place: str, split: str | None, audio_root: str | Path | None = None
) -> tuple[list[dict[str, Any]], Path, str]:
    """The records of a dataset, with paths in its audio columns.

    Sounds are not decoded (`datasets` would need torchcodec for that): those that the dataset holds itself
    are written, as they are, into files named by their SHA-256; any path must lie in the folder, as always.

    Args:
        place: a folder that ``save_to_disk`` wrote, any other folder that ``load_dataset`` can read, or
            ``hf:owner/name``.
        split: needed where there are several.
        audio_root: where paths start and sounds are unpacked.

    Returns:
        The records, the folder that their paths start from, and a SHA-256 of the records.

    Raises:
        BenchmarkError: it cannot be loaded, or has several splits and none is chosen.
    """
    import datasets
    from datasets.config import HF_DATASETS_CACHE

    name, folder = place.removeprefix(_PREFIX), Path(place)
    try:
        saved = any((folder / mark).is_file() for mark in ("state.json", "dataset_dict.json"))
        data = datasets.load_from_disk(place) if saved else datasets.load_dataset(name)
    except Exception as error:  # of many kinds: no such name, no network, no data files, ...
        raise BenchmarkError(f"The dataset {place!r} cannot be loaded: {error.__cause__ or error}") from error
    if isinstance(data, dict):
        if split is None and len(data) > 1:
            raise BenchmarkError(f"The dataset {place!r} has the splits {sorted(data)}: give one as subset.")
        chosen = split or next(iter(data))
        if chosen not in data:
            raise BenchmarkError(f"The dataset {place!r} has no split {chosen!r}: it has {sorted(data)}.")
        data = data[chosen]
    elif split is not None and str(data.split) != split:
        raise BenchmarkError(f"The dataset {place!r} has no split {split!r}: it is {str(data.split)!r}.")
    sounds = [key for key, kind in data.features.items() if isinstance(kind, datasets.Audio)]
    for column in sounds:
        data = data.cast_column(column, datasets.Audio(decode=False))
    cache = Path(HF_DATASETS_CACHE)
    unpacked = Path(audio_root or cache / "mata_interp").resolve()
    records, held = [], False
    for record in map(dict, data):  # one at a time: all sounds at once may not fit into memory
        for column in sounds:
            held |= bool(record[column] and record[column]["bytes"])
            record[column] = _path(record[column], unpacked)
        records.append(record)
    root = unpacked if held or audio_root else (folder if folder.is_dir() else cache).resolve()
    digest = hashlib.sha256()
    for record in records:
        record |= {column: _from(root, record[column]) for column in sounds}
        digest.update(repr(sorted(record.items())).encode())
    if not records:
        raise BenchmarkError(f"The dataset {place!r} is empty.")
    return records, root, digest.hexdigest()


def _path(sound: dict[str, Any] | None, unpacked: Path) -> str | None:
    """Where a sound lies: its own path, or the name of the file in ``unpacked`` that its bytes are put in."""
    if sound is None:
        return None
    if sound["bytes"] is None:
        return sound["path"]
    name = hashlib.sha256(sound["bytes"]).hexdigest()[:32] + (Path(sound["path"] or "").suffix or ".wav")
    if not (unpacked / name).exists():
        unpacked.mkdir(parents=True, exist_ok=True)
        part = unpacked / f"{name}.{os.getpid()}.part"
        part.write_bytes(sound["bytes"])
        part.replace(unpacked / name)  # whole or not at all
    return name


def _from(root: Path, path: str | None) -> str | None:
    """A path as it is from ``root`` on, if it is in there: the same wherever the folder lies."""
    inside = path and Path(path).is_absolute() and Path(path).resolve().is_relative_to(root)
    return str(Path(path).resolve().relative_to(root)) if path and inside else path
