"""What a run would do, and about how long it would take; nothing is written."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmarks import Item
from ..progress import rough_duration
from .answering import Unit, Work, plan_units
from .conditions import Condition, Edit
from .folder import RunFolder, refuse_other_run
from .manifest import known_beforehand
from .planning import StageSettings
from .run import bind_conditions, prepare
from .validation import validate_items

if TYPE_CHECKING:
    from ..lalm import LALM, Decoding

__all__ = ["Forecast", "forecast"]

_ENOUGH = 3  # intervals between parts of a folder, to judge speed by


@dataclass(frozen=True)
class Forecast:
    """Size of a run and an estimate of the time left.

    Attributes:
        items, clips, excluded: Number of items, of their recordings, and of items left out.
        conditions: Names of the conditions.
        batches: Number of batches.
        parts: Number of files of the finished run, one per batch and condition.
        done: Number of parts that exist and are intact.
        tokens: Rows times padded width that are still to be computed, summed over batches and kinds of audio.
        seconds: Estimated time left; None if nothing is left.
        basis: What the estimate is based on.
    """

    items: int
    clips: int
    excluded: int
    conditions: tuple[str, ...]
    batches: int
    parts: int
    done: int
    tokens: int
    seconds: float | None
    basis: str

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "conditions": list(self.conditions)}

    def __str__(self) -> str:
        names = ", ".join(self.conditions)
        what = (
            f"{self.items} items of {self.clips} recordings ({self.excluded} left out), "
            f"{len(self.conditions)} conditions ({names}), {self.batches} batches: {self.parts} parts, "
            f"{self.done} of them done."
        )
        if self.seconds is None:
            return f"{what}\nNothing is left to do."
        return f"{what}\nTime left: about {rough_duration(self.seconds)}, estimated from {self.basis}."


def forecast(  # noqa: PLR0913 the arguments of `run`
    lalm: LALM,
    items: Item | Sequence[Item],
    conditions: Mapping[str, Edit | Condition],
    out: str | Path | None = None,
    *,
    decoding: Decoding | None = None,
    prompt_format: str = "options",
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
) -> Forecast:
    """What `run` would do with the same arguments, and about how long it would take. Nothing is written.

    The time left is estimated from the parts in ``out`` (the median interval between them per token, for each
    kind of audio), or, where there are too few, from a probe: one batch of medium length is computed for each
    kind of audio.

    Args:
        lalm, items, conditions, out, decoding, prompt_format, batch_size, progress, seed: As in `run`.

    Returns:
        The `Forecast`.

    Raises:
        RunError, InterventionError: As in `run`.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> conditions = {"baseline": None, "mata": mi.Mata(1.0, [4, 5])}
        >>> mi.forecast(lalm, items[:4], conditions, progress=False).conditions
        ('baseline', 'mata')
    """
    named = bind_conditions(lalm, conditions, decoding)
    if out is not None:
        refuse_other_run(Path(out), known_beforehand(lalm, named, batch_size, seed, prompt_format))
    validated = validate_items(lalm, items, progress=progress, format=prompt_format)
    manifest, work = prepare(lalm, validated, named, StageSettings(batch_size, progress, seed, prompt_format))
    batches = manifest["batches"]
    units = plan_units(batches, named)
    folder = None
    if out is not None:
        refuse_other_run(Path(out), manifest)
        folder = RunFolder(out) if (Path(out) / "manifest.json").exists() else None
    done = folder.scan_parts()[0] if folder else set()
    left = [unit for unit in units if any((name, unit.batch) not in done for name in unit.conditions)]

    def size(unit: Unit) -> int:
        return len(unit.items) * batches[unit.batch]["padded_width"]

    seconds, basis = None, "nothing"
    if left:
        paces = _paces_of_parts(folder, units, done, size) if folder else {}
        basis = "the pace of the parts that are done"
        if missing := {unit.audio for unit in left} - set(paces):
            basis = f"a probe of {len(missing)} batch(es) on this machine"
            for audio in missing:
                mine = [unit for unit in left if unit.audio == audio]
                paces[audio] = _probed(lalm, work, mine[len(mine) // 2], size)
        seconds = sum(paces[unit.audio] * size(unit) for unit in left)
    return Forecast(
        items=len(validated.items),
        clips=len(validated.clusters),
        excluded=len(validated.excluded),
        conditions=tuple(named),
        batches=len(batches),
        parts=sum(len(unit.conditions) for unit in units),
        done=len(done),
        tokens=sum(size(unit) for unit in left),
        seconds=seconds,
        basis=basis,
    )


def _paces_of_parts(folder: RunFolder, units: Sequence[Unit], done: set, size: Any) -> dict[str, float]:
    """Kind of audio -> seconds per token, from the times at which units ended, where there are enough."""
    ended = [
        (max(folder.part_path(name, unit.batch).stat().st_mtime for name in unit.conditions), unit)
        for unit in units
        if all((name, unit.batch) in done for name in unit.conditions)
    ]
    ended.sort(key=lambda pair: pair[0])
    intervals: dict[str, list[float]] = {}
    for (before, _), (after, unit) in pairwise(ended):
        intervals.setdefault(unit.audio, []).append((after - before) / size(unit))
    return {audio: statistics.median(some) for audio, some in intervals.items() if len(some) >= _ENOUGH}


def _probed(lalm: LALM, work: Work, unit: Unit, size: Any) -> float:
    """Seconds per token of one unit, after a warm-up with its first item."""
    work.compute(lalm, replace(unit, items=unit.items[:1]))
    start = time.perf_counter()
    work.compute(lalm, unit)
    return (time.perf_counter() - start) / size(unit)
