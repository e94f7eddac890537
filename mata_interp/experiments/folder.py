"""A run folder: what was asked (manifest.json) and what was answered (parts/*.parquet).

A part holds one batch under one condition and exists whole or not at all. Hence a killed run loses at most
the batch in hand, several machines may write to one folder, and any reader of Parquet opens it with a glob.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import RunError
from .files import plain, read_json, remove_leftovers, write_json, write_whole
from .records import SCHEMA

__all__ = ["IDENTITY", "RunFolder", "first_difference", "refuse_other_run", "slugs"]

IDENTITY = (
    "version",
    "model",
    "data",
    "prompt_format",
    "seed",
    "batch_size",
    "conditions",
    "excluded",
    "batches",
    "audio_from",
)
"""Fields of the manifest that decide what is in the tables; the others tell how they came about."""


def slugs(names: Sequence[str]) -> dict[str, str]:
    """Condition name -> its name in file names: lower-case ASCII, no two alike."""
    cleaned = {name: re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60] for name in names}
    taken = list(cleaned.values())
    return {
        name: slug
        if slug and taken.count(slug) == 1
        else f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".strip("-")
        for name, slug in cleaned.items()
    }


def first_difference(there: Any, here: Any, field: str = "") -> tuple[str, Any, Any] | None:
    """The first field in which two JSON values differ: (a name like ``model.dtype``, there, here)."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in [*here, *(key for key in there if key not in here)]:
            name = f"{field}.{key}" if field else str(key)
            if found := first_difference(there.get(key), here.get(key), name):
                return found
        return None
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, (a, b) in enumerate(zip(there, here, strict=True)):
            if found := first_difference(a, b, f"{field}[{index}]"):
                return found
        return None
    return None if there == here and type(there) is type(here) else (field, there, here)


_FIRST = ("selection", "trace.nc")  # what a study writes before it knows the conditions of its manifest


class RunFolder:
    """The folder of one run; opened by `RunFolder.start` to write and by ``RunFolder(path)`` to read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise RunError(
                f"{self.path} is no run folder: it has no manifest.json. Give one that a run wrote."
            )
        self.manifest: dict[str, Any] = read_json(self.path / "manifest.json")
        if not isinstance(self.manifest, dict) or not {"conditions", "batches"} <= set(self.manifest):
            raise RunError(
                f"{self.path / 'manifest.json'} is not a run's manifest. Choose another folder (out=...)."
            )
        self._slugs = slugs(list(self.manifest["conditions"]))

    @classmethod
    def start(cls, path: str | Path, manifest: Mapping[str, Any]) -> RunFolder:
        """Make the folder, or go on with the one that the same run began.

        Raises:
            RunError: it cannot be written, holds other files, or belongs to another run; the message names
                the first field of the manifest that differs.
        """
        path = Path(path)
        refuse_other_run(path, manifest)
        if not (path / "manifest.json").exists():
            write_json(path / "manifest.json", manifest)
        for place in (path, path / "parts"):
            remove_leftovers(place)
        return cls(path)

    def part_path(self, condition: str, batch: int) -> Path:
        return self.path / "parts" / f"{self._slugs[condition]}--{batch:05d}.parquet"

    def expected(self) -> Iterator[tuple[str, int]]:
        """(condition, batch) of every part of the finished run."""
        for condition in self.manifest["conditions"]:
            for batch in range(len(self.manifest["batches"])):
                yield condition, batch

    def write_part(self, condition: str, batch: int, table: pa.Table) -> None:
        write_whole(
            self.part_path(condition, batch),
            lambda file: pq.write_table(table, file, write_page_checksum=True),
        )

    def read_parts(self) -> tuple[dict[tuple[str, int], pa.Table], list[str]]:
        """Every part that is there and whole, and the names (with the reason) of those that are damaged."""
        parts, damaged = {}, []
        for condition, batch in self.expected():
            path = self.part_path(condition, batch)
            if path.exists():
                try:
                    parts[condition, batch] = self._read_part(path, condition, batch)
                except (OSError, ValueError, pa.ArrowException) as error:
                    damaged.append(f"{path.name} ({' '.join(str(error).split())[:80]})")
        return parts, damaged

    def _read_part(self, path: Path, condition: str, batch: int) -> pa.Table:
        """The part's table; ValueError or Arrow's error if it is not all of this batch and condition."""
        with path.open("rb") as file:  # ParquetFile on a path would read "condition=..." folders as columns
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
        if not table.schema.equals(SCHEMA):
            raise ValueError("its columns are not those of this version")
        if table["item"].to_pylist() != self.manifest["batches"][batch]["items"]:
            raise ValueError("its items are not those of the manifest")
        if set(table["condition"].to_pylist()) != {condition}:
            raise ValueError("its condition is not the one it is named after")
        return table


def refuse_other_run(path: Path, known: Mapping[str, Any]) -> None:
    """Refuse a folder that cannot be that of the run of which these fields of the manifest are known.

    Nothing is written: what is known before items are looked at can be compared before that.

    Raises:
        RunError: see `RunFolder.start`.
    """
    if not (path / "manifest.json").exists():
        _refuse_foreign(path)
        return
    there, here = RunFolder(path).manifest, plain(known)
    for name in IDENTITY:
        if name in here and (found := first_difference(_essence(there, name), _essence(here, name), name)):
            field, old, new = found
            raise RunError(
                f"{path} holds another run: in its manifest {field} is {_short(old)}, here it is "
                f"{_short(new)}. Choose another folder (out=...), delete this one, or repeat the command "
                "that began it."
            )


def _essence(manifest: Mapping[str, Any], field: str) -> Any:
    """The field without what does not matter: the same weights may go by another name, in another folder."""
    value = manifest.get(field)
    if field == "model" and isinstance(value, Mapping):
        return {name: part for name, part in value.items() if name not in ("name", "revision")}
    return value


def _refuse_foreign(path: Path) -> None:
    """A folder without a manifest may be new, empty, or left by a kill before the manifest was written."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file. Choose another folder (out=...).")
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise RunError(f"cannot write {path}: {nearest} is no folder to write in. Choose another (out=...).")
    entries = [entry.name for entry in path.iterdir()] if path.exists() else []
    others = [name for name in entries if name not in _FIRST and not name.endswith(".tmp")]
    if others:
        raise RunError(
            f"{path} has no manifest.json but holds other things: {_short(sorted(others))}. "
            "Choose an empty or new folder (out=...)."
        )


def _short(value: Any, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
