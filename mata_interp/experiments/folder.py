"""A run folder: what was asked (manifest.json) and what was answered (parts/*.parquet).

A part holds one batch under one condition and exists whole or not at all. Hence a killed run loses at most
the batch in hand, several machines may write to one folder, and any reader of Parquet opens it with a glob.
The many parts of a finished run are put into one file per condition (`RunFolder.compact`); both are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import RunError
from ..execution.comparison import short
from ..execution.files import read_json, remove_leftovers, write_json, write_whole
from .identity import difference, run_digest
from .records import RUN_FORMAT, current

if TYPE_CHECKING:
    from .answering import Unit

__all__ = ["RunFolder", "refuse_other_run", "slugs"]


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


_RUN, _CONTENT = b"mata_interp.run", b"mata_interp.content"  # digests in a part's metadata
_DAMAGE = (OSError, ValueError, pa.ArrowException)  # what reading a part that is not whole raises
# what a study or a run writes before it knows its conditions, whole or in parts
_FILES = ("selection.nc", "layer-choice.nc", "sham.json", "trace.nc", "layers.json")
MANY_PARTS = 64  # a finished run of fewer parts keeps them


class RunFolder:
    """The folder of one run; opened by `RunFolder.start` to write and by ``RunFolder(path)`` to read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not (self.path / "manifest.json").is_file():
            raise RunError(
                f"{self.path} is no run folder: it has no manifest.json. Give one that a run wrote."
            )
        self.manifest: dict[str, Any] = read_json(self.path / "manifest.json")
        if not isinstance(self.manifest, dict) or not {"conditions", "batches"} <= set(self.manifest):
            raise RunError(
                f"{self.path / 'manifest.json'} is not a run's manifest. Choose another folder (out=...)."
            )
        if (version := self.manifest.get("version")) != RUN_FORMAT:
            raise RunError(
                f"{self.path / 'manifest.json'} has format version {version or 'none'}, and this mata_interp "
                f"reads version {RUN_FORMAT}. Run again in another folder (out=...), or use the mata_interp "
                "that wrote it."
            )
        self._slugs = slugs(list(self.manifest["conditions"]))
        self._digest = run_digest(self.manifest)

    @classmethod
    def start(cls, path: str | Path, manifest: Mapping[str, Any]) -> RunFolder:
        """Make the folder, or go on with the one that the same run began.

        Raises:
            RunError: it cannot be written, holds other files, or belongs to another run; the message names
                the first field of the manifest that differs.
        """
        path = Path(path).expanduser()
        refuse_other_run(path, manifest)
        if not (path / "manifest.json").exists():
            write_json(path / "manifest.json", manifest, new=True)
            refuse_other_run(path, manifest)  # another process may have been first
        for place in (path, path / "parts"):
            remove_leftovers(place)
        return cls(path)

    def part_path(self, condition: str, batch: int) -> Path:
        return self.path / "parts" / f"{self._slugs[condition]}--{batch:05d}.parquet"

    def whole_path(self, condition: str) -> Path:
        """The file of a condition of a finished run, with all its batches."""
        return self.path / "parts" / f"{self._slugs[condition]}.parquet"

    def expected(self) -> Iterator[tuple[str, int]]:
        """(condition, batch) of every part of the finished run."""
        for condition in self.manifest["conditions"]:
            for batch in range(len(self.manifest["batches"])):
                yield condition, batch

    def write_part(self, condition: str, batch: int, table: pa.Table) -> None:
        """Write it whole or not at all, marked as this run's and with a digest of its content."""
        self._write_marked(self.part_path(condition, batch), table)

    def _write_marked(self, path: Path, table: pa.Table) -> None:
        marked = table.replace_schema_metadata({_RUN: self._digest, _CONTENT: _digest(table)})
        write_whole(path, lambda file: pq.write_table(marked, file, write_page_checksum=True))

    def compact(self) -> None:
        """Put the parts of a finished run into one file per condition, one condition after the other.

        A run of few parts, and one with a part that is missing or damaged, is left as it is. A kill leaves
        parts beside the file that holds them too: they are read as before, and removed by the next call.
        """
        batches = len(self.manifest["batches"])
        if batches * len(self.manifest["conditions"]) < MANY_PARTS:
            return
        for condition in self.manifest["conditions"]:
            paths = [self.part_path(condition, batch) for batch in range(batches)]
            if not any(path.exists() for path in paths):
                continue
            tables = [table for _, table in self._condition_parts(condition)]
            if len(tables) < batches or any(isinstance(table, str) for table in tables):
                return
            self._write_marked(self.whole_path(condition), pa.concat_tables(tables))
            for path in paths:
                path.unlink(missing_ok=True)

    def write(self, unit: Unit, parts: Mapping[str, pa.Table]) -> None:
        """Write the parts of a unit: name of each condition -> its table."""
        for name, table in parts.items():
            self.write_part(name, unit.batch, table)

    def missing(self, unit: Unit) -> Unit | None:
        """The unit with those conditions alone whose parts are not there and whole; None if all are."""

        def there(condition: str) -> bool:
            try:
                self._read_part(self.part_path(condition, unit.batch), condition, unit.batch)
            except _DAMAGE:
                return unit.batch in self._read_whole(condition)[0]
            return True

        missing = tuple(name for name in unit.conditions if not there(name))
        return replace(unit, conditions=missing) if missing else None

    def scan_parts(self) -> tuple[set[tuple[str, int]], list[str]]:
        """As `read_parts`, but with the names of the parts only: one part is in memory at a time."""
        done, damaged = set(), []
        for part, table in self._parts():
            if isinstance(table, str):
                damaged.append(table)
            else:
                done.add(part)
        return done, damaged

    def read_parts(self) -> tuple[dict[tuple[str, int], pa.Table], list[str]]:
        """Every part that is there and whole, and the names (with the reason) of those that are damaged."""
        parts, damaged = {}, []
        for part, table in self._parts():
            if isinstance(table, str):
                damaged.append(table)
            else:
                parts[part] = table
        return parts, damaged

    def unknown_files(self) -> list[str]:
        """Parquet files beside the parts that are not parts; a reader that globs would read them."""
        known = {self.part_path(condition, batch).name for condition, batch in self.expected()}
        known |= {self.whole_path(condition).name for condition in self.manifest["conditions"]}
        return sorted(path.name for path in (self.path / "parts").glob("*.parquet") if path.name not in known)

    def _parts(self) -> Iterator[tuple[tuple[str, int], pa.Table | str]]:
        """Of each part that is there, its table, or its name and what is wrong with it."""
        for condition in self.manifest["conditions"]:
            yield from self._condition_parts(condition)

    def _condition_parts(self, condition: str) -> Iterator[tuple[tuple[str, int], pa.Table | str]]:
        """The parts of one condition; a part of its own goes before the file of the whole condition."""
        whole, damage = self._read_whole(condition)
        for batch in range(len(self.manifest["batches"])):
            path = self.part_path(condition, batch)
            try:
                yield (condition, batch), self._read_part(path, condition, batch)
            except FileNotFoundError:  # never written, or put into the file of the condition
                if not whole:  # it may have been written since
                    whole, damage = self._read_whole(condition)
                if batch in whole:
                    yield (condition, batch), whole[batch]
                elif damage:
                    yield (condition, batch), damage
            except _DAMAGE as error:
                yield (condition, batch), whole.get(batch, _damage(path, error))

    def _read_whole(self, condition: str) -> tuple[dict[int, pa.Table], str]:
        """Batch -> table of the file of a condition, and what is wrong with it; both empty without one."""
        path = self.whole_path(condition)
        try:
            table = self._read_marked(path, condition)
            sizes = [len(batch["items"]) for batch in self.manifest["batches"]]
            starts = [sum(sizes[:batch]) for batch in range(len(sizes))]
            parts = {
                n: table.slice(start, size) for n, (start, size) in enumerate(zip(starts, sizes, strict=True))
            }
            for batch, part in parts.items():
                self._check_items(part, batch)
        except FileNotFoundError:
            return {}, ""
        except _DAMAGE as error:
            return {}, _damage(path, error)
        return parts, ""

    def _read_part(self, path: Path, condition: str, batch: int) -> pa.Table:
        """The part's table; ValueError or Arrow's error if it is not all of this batch and condition."""
        table = self._read_marked(path, condition)
        self._check_items(table, batch)
        return table

    def _check_items(self, table: pa.Table, batch: int) -> None:
        if table["item"].to_pylist() != self.manifest["batches"][batch]["items"]:
            raise ValueError("its items are not those of the manifest")

    def _read_marked(self, path: Path, condition: str) -> pa.Table:
        """The table of a file of this run; ValueError or Arrow's error if it is not whole."""
        with path.open("rb") as file:  # ParquetFile on a path would read "condition=..." folders as columns
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
        marks = table.schema.metadata or {}
        table = current(table)
        if marks.get(_RUN, b"").decode() != self._digest:
            raise ValueError("it is of another run")
        if marks.get(_CONTENT, b"").decode() != _digest(table):
            raise ValueError("its content is not what was written")
        if set(table["condition"].to_pylist()) != {condition}:
            raise ValueError("its condition is not the one it is named after")
        return table


def _damage(path: Path, error: Exception) -> str:
    """Name of a file and what is wrong with it."""
    return f"{path.name} ({' '.join(str(error).split())[:80]})"


def _digest(table: pa.Table) -> str:
    """SHA-256 of the rows. Parquet's own checksums leave out the headers of pages."""
    return hashlib.sha256(json.dumps(table.to_pylist()).encode()).hexdigest()


def refuse_other_run(path: Path, known: Mapping[str, Any]) -> None:
    """Refuse a folder that cannot be that of the run of which these fields of the manifest are known.

    Nothing is written: what is known before items are looked at can be compared before that.

    Raises:
        RunError: see `RunFolder.start`.
    """
    if not (path / "manifest.json").exists():
        _refuse_foreign(path)
    elif change := difference(RunFolder(path).manifest, known):
        raise RunError(
            f"{path} holds another run: {change}. Choose another folder (out=...), delete this one, or "
            "repeat the command that began it."
        )


def _refuse_foreign(path: Path) -> None:
    """A folder without a manifest may be new, empty, or left by a kill before the manifest was written."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file. Choose another folder (out=...).")
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise RunError(f"cannot write {path}: {nearest} is no folder to write in. Choose another (out=...).")
    entries = [entry.name for entry in path.iterdir()] if path.exists() else []
    first = {*_FILES, *(name for name in entries if name.endswith(".parts") and name.startswith(_FILES))}
    foreign = [name for name in entries if name not in first and not name.endswith(".tmp")]
    if foreign:
        raise RunError(
            f"{path} has no manifest.json but holds other things: {short(sorted(foreign))}. "
            "Choose an empty or new folder (out=...)."
        )
