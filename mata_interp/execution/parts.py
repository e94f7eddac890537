"""Parts of a file that is computed batch by batch: a killed process loses at most the batch in hand.

The parts stand in a folder beside the file, ``FILE.parts``, which is removed once the file is whole. Each is
an archive of arrays that any numpy reads (npz, no pickle), written under a temporary name and renamed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import platform
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import RunError
from .claims import UnitClaims
from .comparison import first_difference, short
from .files import plain, read_json, remove_leftovers, write_json, write_whole
from .notices import warn

if TYPE_CHECKING:
    from ..lalm import LALM
    from .units import Unit

__all__ = ["MeasuredBatch", "MemoryParts", "Output", "PartsFolder", "refuse_other_work"]

_NOTES = "notes"  # the array that holds what is not an array
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
PART = "part"  # the only part of a unit


@dataclass(frozen=True, eq=False)
class MeasuredBatch:
    """What was measured on one batch.

    Attributes:
        arrays: Name -> array, of numbers or texts.
        notes: Name -> plain data, as JSON knows it.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


class MemoryParts:
    """Parts that are kept in memory alone."""

    def __init__(self) -> None:
        self._parts: dict[int, MeasuredBatch] = {}

    def claims(self) -> UnitClaims:
        """No claims: no other process has these parts."""
        return UnitClaims(None)

    def missing(self, unit: Unit) -> Unit | None:
        """The unit if its part is not there."""
        return None if unit.number in self._parts else unit

    def write(self, unit: Unit, parts: Mapping[str, MeasuredBatch]) -> None:
        """Keep the part of a unit."""
        self._parts[unit.number] = parts[PART]

    def read(self, unit: Unit) -> MeasuredBatch:
        """The part of a unit that is done."""
        return self._parts[unit.number]


class PartsFolder(MemoryParts):
    """Parts in a folder, each whole or not there; opened by `Output.parts`."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        super().__init__()
        self.path = path
        self._digest = _digest(identity)

    def claims(self) -> UnitClaims:
        """Claims against other processes that compute parts of the same file."""
        return UnitClaims(self.path / "claims.lock")

    def missing(self, unit: Unit) -> Unit | None:
        """The unit if its part is not there and whole.

        Warns:
            RunWarning: The part is damaged.
        """
        if super().missing(unit) is None:
            return None
        path = self._file(unit)
        if not path.exists():
            return unit
        try:
            self._parts[unit.number] = self._load(path, unit)
        except _DAMAGE as error:
            reason = " ".join(str(error).split())[:80]
            warn(f"{path} is damaged and is computed again: {reason}")
            return unit
        return None

    def write(self, unit: Unit, parts: Mapping[str, MeasuredBatch]) -> None:
        """Keep the part of a unit, in memory and in the folder."""
        super().write(unit, parts)
        part = parts[PART]
        marked = {"work": self._digest, "items": list(unit.items), "notes": plain(part.notes)}
        notes = np.frombuffer(json.dumps(marked).encode(), np.uint8)
        arrays = {**part.arrays, _NOTES: notes}
        write_whole(self._file(unit), lambda file: np.savez(file, **arrays))

    def _file(self, unit: Unit) -> Path:
        return self.path / f"{unit.number:05d}.npz"

    def _load(self, path: Path, unit: Unit) -> MeasuredBatch:
        """The part; an error of `_DAMAGE` if it is not all of this unit."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        marked = json.loads(arrays.pop(_NOTES).tobytes())
        if marked["work"] != self._digest or marked["items"] != list(unit.items):
            raise ValueError("it is of other work")
        return MeasuredBatch(arrays, marked["notes"])


@dataclass(frozen=True)
class Output:
    """A file to write, and what decides its content.

    Attributes:
        path: The file.
        identity: All that decides what is in the file, as plain data. The same call with the same identity
            continues with the parts that are there; another identity is refused.
        whole: Whether the function that computes the parts also writes the file. If not, its caller does, and
            removes the parts.
    """

    path: Path
    identity: Mapping[str, Any]
    whole: bool = True

    def remove_parts(self) -> None:
        """Remove the folders of the parts, once the file is whole."""
        for folder in (self._folder, *self.path.parent.glob(f"{glob.escape(self.path.name)}.round*.parts")):
            shutil.rmtree(folder, ignore_errors=True)

    def round(self, number: int, configurations: Iterable[str]) -> Output:
        """The parts of one round of work whose rounds depend on those before.

        Args:
            number: Number of the round.
            configurations: Names of what is measured in it.
        """
        path = self.path.with_name(f"{self.path.name}.round{number}")
        return Output(path, {**self.identity, "round": list(configurations)}, whole=False)

    @property
    def _folder(self) -> Path:
        return self.path.with_name(f"{self.path.name}.parts")

    def parts(self, lalm: LALM) -> PartsFolder:
        """The folder of the parts, new or that which the same work began.

        Warns:
            RunWarning: The work was begun with another number of threads, or on another device or platform.

        Raises:
            RunError: The folder cannot be written, or belongs to other work.
        """
        folder = self._folder
        manifest = folder / "manifest.json"
        identity = plain(self.identity)
        if not manifest.exists():
            write_json(manifest, {"identity": identity, "environment": _environment(lalm)}, new=True)
        begun = read_json(manifest)
        if not isinstance(begun, dict) or "identity" not in begun:
            raise RunError(f"{manifest} was not written by this package. Delete it, or choose another --out.")
        refuse_other_work(folder, begun["identity"], identity)
        _warn_of_other_machine(folder, begun.get("environment", {}), _environment(lalm))
        remove_leftovers(folder)
        return PartsFolder(folder, identity)


def refuse_other_work(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse a file or folder whose content is decided by something else.

    Args:
        path: The file or folder.
        there: The identity that it carries.
        here: The identity that is wanted.

    Raises:
        RunError: They differ; the message names the first field that does.
    """
    if difference := first_difference(there, plain(here)):
        field, old, new = difference
        raise RunError(
            f"{path} holds another {here.get('stage', 'result')}: there {field} is {short(old)}, here it is "
            f"{short(new)}. Choose another file (out=...), delete this one, or repeat the command that began "
            "it."
        )


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _environment(lalm: LALM) -> dict[str, Any]:
    """What may change the last digits of results."""
    return {
        "threads": torch.get_num_threads(),
        "device": str(lalm.device),
        "platform": platform.platform(),
    }


def _warn_of_other_machine(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    changed = [f"{name} {there.get(name)} -> {here[name]}" for name in here if there.get(name) != here[name]]
    if changed:
        warn(
            f"{path} was begun elsewhere ({', '.join(changed)}): rows computed here may differ in the last "
            "digits from those of an unbroken run."
        )
