"""What a trace, a sweep, a search for layers or a study would do: its items, time and memory."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmarks import Item
from ..execution import Measure
from ..fusion.fusion import FusionBatch
from ..interventions import in_order, select_queries
from ..progress import rough_duration
from ..sweeps.inputs import named_configurations
from ..sweeps.run_sweep import SweepBatch
from ..tracing.run_trace import TraceBatch
from .conditions import Condition, Edit
from .memory_forecast import BatchSize, MemoryForecast, forecast_memory
from .planning import StageSettings, plan_batches
from .power import PlannedPower
from .validation import ValidatedItems

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = [
    "Probe",
    "StageForecast",
    "StudyForecast",
    "count_by_condition",
    "describe_items",
    "forecast_layers",
    "forecast_sweep",
    "forecast_trace",
    "largest_batch",
    "medium_item",
    "timed",
]


@dataclass(frozen=True)
class StageForecast:
    """What one stage would do.

    Attributes:
        name: Name of the stage.
        items, clips: Number of items and of their recordings.
        by_condition: Caption condition -> number of items; empty where items have none.
        work: What is done with each item, such as ``"131 configurations"``.
        batches, done: Number of batches, and of those that are done.
        seconds: Estimated time left, from one item of medium length alone: batches are usually faster. None
            if nothing is left.
        memory: Memory that the largest batch takes.
    """

    name: str
    items: int
    clips: int
    by_condition: dict[str, int]
    work: str
    batches: int
    done: int
    seconds: float | None
    memory: MemoryForecast

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "memory": self.memory.to_dict()}

    def __str__(self) -> str:
        return f"{self.summary}\nMemory: {self.memory}"

    @property
    def summary(self) -> str:
        """Items, batches and time in one line."""
        what = (
            f"{self.name}: {describe_items(self.items, self.by_condition)} of {self.clips} recordings, "
            f"{self.work}, {self.batches} batches"
        )
        if self.seconds is None:
            return f"{what}: done"
        done = f" ({self.done} done)" if self.done else ""
        return f"{what}{done}: about {rough_duration(self.seconds)} left, estimated from one item"


@dataclass(frozen=True)
class StudyForecast:
    """What a study would do.

    Attributes:
        stages: Its stages, in order; the one that is called ``measuring`` tests the items of the confirmation
            split.
        excluded: Number of items left out of either split.
        power: What its primary comparison can detect.
    """

    stages: tuple[StageForecast, ...]
    excluded: int
    power: PlannedPower

    @property
    def seconds(self) -> float:
        """Estimated time left."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def memory(self) -> MemoryForecast:
        """The memory of the stage that takes most."""
        return max((stage.memory for stage in self.stages), key=lambda memory: memory.total)

    def to_dict(self) -> dict[str, Any]:
        return {
            "stages": [stage.to_dict() for stage in self.stages],
            "excluded": self.excluded,
            "seconds": self.seconds,
            "memory": self.memory.to_dict(),
            "power": self.power.to_dict(),
        }

    def __str__(self) -> str:
        lines = [stage.summary for stage in self.stages]
        time_left = f"Time left: about {rough_duration(self.seconds)} in all; {self.excluded} items left out."
        return "\n".join([*lines, time_left, f"Memory: {self.memory}", str(self.power)])


def count_by_condition(items: Iterable[Item]) -> dict[str, int]:
    """Caption condition -> number of items; empty where no item has one."""
    counts = Counter(item.condition for item in items)
    return {} if set(counts) <= {""} else {name or "no caption": n for name, n in sorted(counts.items())}


def describe_items(items: int, by_condition: Mapping[str, int]) -> str:
    """``39 items (13 conflict, 13 congruent, 13 neutral)``."""
    counts = ", ".join(f"{number} {name}" for name, number in by_condition.items())
    return f"{items} items{f' ({counts})' if counts else ''}"


def timed(run: Callable[[], object]) -> float:
    """Seconds that ``run()`` takes; where that is less than one, of a second call, after this warm-up."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        if seconds > 1:
            break
    return seconds


def forecast_trace(
    lalm: LALM,
    validated: ValidatedItems,
    settings: StageSettings,
    query: str = "last",
    max_new_tokens: int = 32,
    out: Path | None = None,
    intervention: Edit = None,
) -> StageForecast:
    """What `trace` of these items would do.

    Args:
        lalm, query, max_new_tokens, intervention: As in `trace`.
        validated: The items.
        settings: Batch size and prompt format.
        out: The file that is written.
    """
    generated = query == "generated"
    item = medium_item(validated)
    queries = 1
    if query == "text":
        groups = lalm.prompt(item, format=settings.prompt_format).groups
        queries = int(select_queries("text", groups).sum())
    rows, width = _largest(validated, settings)
    size = BatchSize(rows, width, max_new_tokens if generated else 0, queries=queries, cached=generated)
    measure = TraceBatch(query, max_new_tokens, True, settings.prompt_format, True, in_order(intervention))
    probe = Probe(lalm, validated, settings, measure)
    work = f"attention of the {query} query tokens" if query != "last" else "attention of the last token"
    return probe.stage("tracing attention", work, size, out)


def forecast_sweep(
    lalm: LALM,
    validated: ValidatedItems,
    configurations: Mapping[str, Edit],
    settings: StageSettings,
    out: Path | None = None,
) -> StageForecast:
    """What `sweep` of these items would do.

    Args:
        lalm: The model.
        validated: The items.
        configurations: Name -> edit.
        settings: Batch size and prompt format.
        out: The file that is written.
    """
    edits = tuple(named_configurations(lalm, configurations).values())
    rows, width = _largest(validated, settings)
    longest, options = _option_tokens(lalm, validated.items)
    size = BatchSize(rows, width, longest, options, len(edits))
    measure = SweepBatch(edits, True, None, settings.prompt_format, True)
    probe = Probe(lalm, validated, settings, measure)
    return probe.stage("sweep", f"{len(edits):,} configurations", size, out)


def forecast_layers(
    lalm: LALM,
    validated: ValidatedItems,
    criteria: Collection[str],
    settings: StageSettings,
    out: Path | None = None,
) -> StageForecast:
    """What `fusion_layers` of these items would do.

    Args:
        lalm: The model.
        validated: The items.
        criteria: Names of the criteria.
        settings: Batch size and prompt format.
        out: The file that is written.
    """
    measure = FusionBatch(tuple(criteria), (), settings.prompt_format, True)
    longest, options = _option_tokens(lalm, validated.items)
    width = max(validated.lengths[item.id] for item in validated.items)
    size = BatchSize(1, width, longest, options, len(lalm.attention_layers), queries=width)
    probe = Probe(lalm, validated, settings, measure, lambda item: [(item, None)])
    return probe.stage("fusion layers", f"{len(criteria)} criteria, item by item", size, out)


def largest_batch(
    lalm: LALM, validated: ValidatedItems, settings: StageSettings, conditions: Iterable[Condition]
) -> BatchSize:
    """The size of a run's largest batch."""
    rows, width = _largest(validated, settings)
    longest, _ = _option_tokens(lalm, validated.items)
    for condition in conditions:
        if condition.decoding is not None:
            longest = max(longest, condition.decoding.max_new_tokens)
    return BatchSize(rows, width, longest)


@dataclass(frozen=True)
class Probe:
    """Measures one item of medium length.

    Attributes:
        lalm, validated, settings: The model, the items, and how they are measured.
        measure: What is measured on each batch.
        batch_of: The batch of a single item.
    """

    lalm: LALM
    validated: ValidatedItems
    settings: StageSettings
    measure: Measure
    batch_of: Callable[[Item], Any] = lambda item: [item]

    def stage(
        self, name: str, work: str, size: BatchSize, out: Path | None, passes: int = 1
    ) -> StageForecast:
        """The forecast of a stage.

        Args:
            name, work: As in `StageForecast`.
            size: Size of the largest batch.
            out: The file that the stage writes, whose parts stand beside it.
            passes: How often each item is measured.
        """
        items, lengths = self.validated.items, self.validated.lengths
        batches = plan_batches(items, lengths, self.settings.batch_size)
        done = _done(out, len(batches))
        seconds = None
        if done < len(batches):
            item = medium_item(self.validated)
            pace = timed(lambda: self.measure(self.lalm, self.batch_of(item))) / lengths[item.id]
            tokens = sum(len(batch) * max(lengths[item.id] for item in batch) for batch in batches)
            seconds = pace * tokens * passes * (1 - done / len(batches))
        return StageForecast(
            name=name,
            items=len(items),
            clips=len(self.validated.clusters),
            by_condition=count_by_condition(items),
            work=work,
            batches=len(batches),
            done=done,
            seconds=seconds,
            memory=forecast_memory(self.lalm, size),
        )


def _done(out: Path | None, batches: int) -> int:
    """Number of batches whose parts are there."""
    if out is None:
        return 0
    if out.exists():
        return batches
    return min(batches, len(list(out.with_name(f"{out.name}.parts").glob("[0-9]*.npz"))))


def medium_item(validated: ValidatedItems) -> Item:
    """An item whose prompt has the median length."""
    middle = statistics.median_low(validated.lengths[item.id] for item in validated.items)
    return next(item for item in validated.items if validated.lengths[item.id] == middle)


def _largest(validated: ValidatedItems, settings: StageSettings) -> tuple[int, int]:
    """Rows and width of the largest batch, which is that of the longest prompts."""
    longest = max(validated.lengths[item.id] for item in validated.items)
    return min(settings.batch_size, len(validated.items)), longest


def _option_tokens(lalm: LALM, items: Sequence[Item]) -> tuple[int, int]:
    """Tokens of the longest option, and of all options of an item together, the first of each left out."""
    longest = together = 0
    for item in items:
        lengths = [len(tokens) for tokens in lalm.option_tokens(item, item.choices)] if item.choices else []
        longest = max([longest, *lengths])
        together = max(together, sum(length - 1 for length in lengths))
    return longest, together
