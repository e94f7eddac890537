"""Units of work: batches that are computed in any order, in this process or in another one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..benchmarks import Item
from .claims import UnitClaims

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["Store", "Unit", "Work", "absolute", "compute_here"]


@dataclass(frozen=True)
class Unit:
    """What is computed at once.

    Attributes:
        number: Number of the unit, the same in every process that shares the work.
        batch: Index of its batch.
        items: Ids of its items, in the order of the batch.
    """

    number: int
    batch: int
    items: tuple[str, ...]


class Work(Protocol):
    """Everything that computing a unit needs. It is pickled for workers on other machines."""

    def compute(self, lalm: LALM, unit: Any) -> Mapping[str, Any]:
        """Compute a unit: name of each of its parts -> the part."""
        ...

    def only(self, units: Iterable[Any]) -> Work:
        """A copy with no more than these units need."""
        ...

    def with_absolute_paths(self) -> Work:
        """A copy for a worker, which has another working directory."""
        ...


class Store(Protocol):
    """Where parts are kept."""

    def missing(self, unit: Any) -> Any:
        """What is left of a unit: itself, a smaller one, or None if all its parts are there."""
        ...

    def write(self, unit: Any, parts: Mapping[str, Any]) -> None:
        """Keep the parts of a unit."""
        ...


def compute_here(
    lalm: LALM,
    work: Work,
    units: Sequence[Any],
    store: Store,
    claims: UnitClaims,
    done: Callable[[Any], object],
) -> None:
    """Compute the missing parts of ``units`` in this process, each unit under its claim.

    Args:
        lalm: The model.
        work: What the units need.
        units: The units.
        store: Where the parts go.
        claims: Claims against other processes.
        done: Called with each finished unit.
    """
    for unit in claims.one_by_one(units):
        if missing := store.missing(unit):
            store.write(missing, work.compute(lalm, missing))
        done(unit)


def absolute(value: Any) -> Any:
    """Items with absolute paths and prompts on the CPU, also in lists and tuples; other values unchanged."""
    from ..lalm import Prompt

    if isinstance(value, Prompt):
        return value.to("cpu")
    if isinstance(value, list | tuple):
        return type(value)(map(absolute, value))
    if not isinstance(value, Item) or not any(isinstance(clip, str | Path) for clip in value.clips):
        return value
    if value.audio_root is None:
        clips = [
            Path(clip).expanduser().absolute() if isinstance(clip, str | Path) else clip
            for clip in value.clips
        ]
        return replace(value, audio=clips)
    return replace(value, audio_root=Path(value.audio_root).expanduser().absolute())
