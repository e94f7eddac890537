"""What a run would do, how long it would take and how much memory; nothing is written."""

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
from .memory_forecast import MemoryForecast, forecast_memory
from .planning import StageSettings
from .preparation import bind_conditions, prepare
from .stage_forecast import count_by_condition, describe_items, largest_batch, timed
from .validation import ValidatedItems, validate_items

if TYPE_CHECKING:
    from ..lalm import LALM, Decoding

__all__ = ["Forecast", "forecast", "forecast_of"]

_ENOUGH = 3  # intervals between parts of a folder, to judge speed by
FEW = 20  # items left of each kind of audio, below which a probe would be a large part of the work


@dataclass(frozen=True)
class Forecast:
    """Size of a run, an estimate of the time left, and the memory that it takes.

    Attributes:
        items, clips, excluded: Number of items, of their recordings, and of items left out.
        by_condition: Caption condition -> number of items; empty where items have none.
        conditions: Names of the conditions.
        batches: Number of batches.
        parts: Number of files of the finished run, one per batch and condition.
        done: Number of parts that exist and are intact.
        tokens: Rows times padded width that are still to be computed, summed over batches and kinds of audio.
        seconds: Estimated time left; None if nothing is left, or if there is no estimate.
        basis: What the estimate is based on; empty if there is none.
        memory: Memory that the largest batch takes.
    """

    items: int
    clips: int
    by_condition: dict[str, int]
    excluded: int
    conditions: tuple[str, ...]
    batches: int
    parts: int
    done: int
    tokens: int
    seconds: float | None
    basis: str
    memory: MemoryForecast

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "conditions": list(self.conditions), "memory": self.memory.to_dict()}

    def __str__(self) -> str:
        names = ", ".join(self.conditions)
        what = (
            f"{describe_items(self.items, self.by_condition)} of {self.clips} recordings "
            f"({self.excluded} left out), {len(self.conditions)} conditions ({names}), {self.batches} "
            f"batches: {self.parts} parts, {self.done} of them done."
        )
        if not self.tokens:
            return f"{what}\nNothing is left to do."
        time_left = "not known before the first batch is done"
        if self.seconds is not None:
            time_left = f"about {rough_duration(self.seconds)}, estimated from {self.basis}"
        return f"{what}\nTime left: {time_left}.\nMemory: {self.memory}"


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
    """What `run` would do with the same arguments, about how long and in how much memory. Nothing is written.

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
        out = Path(out).expanduser()
        refuse_other_run(out, known_beforehand(lalm, named, batch_size, seed, prompt_format))
    validated = validate_items(lalm, items, progress=progress, format=prompt_format)
    settings = StageSettings(batch_size, progress, seed, prompt_format)
    manifest, work = prepare(lalm, validated, named, settings)
    folder = None
    if out is not None:
        refuse_other_run(Path(out), manifest)
        folder = RunFolder(out) if (Path(out) / "manifest.json").exists() else None
    return forecast_of(lalm, validated, work, folder, settings, manifest, whole_batches=True)


def forecast_of(
    lalm: LALM,
    validated: ValidatedItems,
    work: Work,
    folder: RunFolder | None,
    settings: StageSettings,
    manifest: Mapping[str, Any],
    *,
    whole_batches: bool = False,
) -> Forecast:
    """The forecast of a run that is prepared.

    Args:
        lalm: The model.
        validated: The items.
        work: What the units need.
        folder: The run folder, if there is one.
        settings: How the run is computed.
        manifest: The manifest of the run.
        whole_batches: Probe with a whole batch of each kind of audio; else with one item of each, which takes
            less time and says less, and not at all where it would be a large part of the work.
    """
    batches, conditions = manifest["batches"], work.conditions
    units = plan_units(batches, conditions)
    done = folder.scan_parts()[0] if folder else set()
    left = [unit for unit in units if any((name, unit.batch) not in done for name in unit.conditions)]

    def size(unit: Unit) -> int:
        return len(unit.items) * batches[unit.batch]["padded_width"]

    seconds, basis = None, "nothing"
    if left:
        paces = _paces_of_parts(folder, units, done, size) if folder else {}
        basis = "the pace of the parts that are done"
        missing = {unit.audio for unit in left} - set(paces)
        if missing and not whole_batches and sum(len(unit.items) for unit in left) < FEW * len(missing):
            basis = ""
        elif missing:
            what = "batch(es)" if whole_batches else "item(s)"
            basis = f"a probe of {len(missing)} {what} on this machine"
            for audio in missing:
                mine = [unit for unit in left if unit.audio == audio]
                paces[audio] = _probed(lalm, work, mine[len(mine) // 2], batches, whole_batches)
        if basis:
            seconds = sum(paces[unit.audio] * size(unit) for unit in left)
    return Forecast(
        items=len(validated.items),
        clips=len(validated.clusters),
        by_condition=count_by_condition(validated.items),
        excluded=len(validated.excluded),
        conditions=tuple(conditions),
        batches=len(batches),
        parts=sum(len(unit.conditions) for unit in units),
        done=len(done),
        tokens=sum(size(unit) for unit in left),
        seconds=seconds,
        basis=basis,
        memory=forecast_memory(lalm, largest_batch(lalm, validated, settings, conditions.values())),
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


def _probed(
    lalm: LALM, work: Work, unit: Unit, batches: Sequence[Mapping[str, Any]], whole_batches: bool
) -> float:
    """Seconds per token of one unit, or of its first item alone, after a warm-up with that item."""
    first = replace(unit, items=unit.items[:1])
    seconds = timed(lambda: work.compute(lalm, first))
    rows = 1
    if whole_batches:
        start = time.perf_counter()
        work.compute(lalm, unit)
        seconds, rows = time.perf_counter() - start, len(unit.items)
    return seconds / (rows * batches[unit.batch]["padded_width"])
