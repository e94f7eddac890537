"""What a study would do: every stage with its items, its time and its memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..benchmarks import Item, Items
from ..interventions import DEFAULT_ALPHAS, AttentionEdit
from .answering import Unit, Work
from .choosing import BASELINE, Search
from .conditions import AudioKind, Condition, Edit
from .crossfit_result import CROSSFIT_SWEEP
from .dose_matching import EVALUATIONS
from .extra_shams import IN_HEADS
from .folder import RunFolder
from .item_recordings import RECORDINGS
from .memory_forecast import forecast_memory
from .outcomes import recorded_conditions
from .partners import audio_partners
from .planned_comparisons import CONFLICT
from .planning import StageSettings, plan_batches
from .power import plan_power
from .preparation import bind_conditions
from .random_layers import random_layers
from .recording import RecordBatch
from .repeat import FOLDER, other_batch_size
from .sham import DoseBatch
from .stage_forecast import (
    Probe,
    StageForecast,
    StudyForecast,
    count_by_condition,
    forecast_sweep,
    forecast_trace,
    largest_batch,
    medium_item,
    timed,
)
from .study_plan import (
    DRAWS,
    SHAM,
    SWEEP,
    TRACE,
    StudyExtras,
    StudySplits,
    study_conditions,
)
from .study_settings import StudySettings

if TYPE_CHECKING:
    from ..fusion import FusionProfile
    from ..lalm import LALM, Decoding

__all__ = ["forecast_of", "forecast_study", "measuring", "whole_forecast"]

COARSE = 7  # a search from coarse to fine tries about one of so many configurations on each item


def forecast_study(  # noqa: PLR0913 the arguments of `study`
    lalm: LALM,
    items: Items | Sequence[Item],
    out: str | Path | None = None,
    *,
    layers: Iterable[int] | FusionProfile | None = None,
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    rule: str = "abs",
    decoding: Decoding | None = None,
    search: Search | None = None,
    methods: Mapping[str, Edit] | None = None,
    prompt_format: str = "options",
    items_limit: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
    seed: int = 0,
    strict: bool = False,
    crossfit: int | None = None,
    shams: Sequence[str] = (),
    repeat_baseline: bool = False,
) -> StudyForecast:
    """What `study` would do with the same arguments, about how long and in how much memory.

    Nothing is written. Time is estimated from one item of medium length for each stage.

    Args:
        lalm, items, layers, alphas, rule, decoding, search, methods, prompt_format, items_limit, batch_size,
            progress, seed, strict, crossfit, shams, repeat_baseline: As in `study`.
        out: The folder of the study; stages and batches that are done there are not counted.

    Returns:
        The `StudyForecast`.

    Raises:
        RunError, InterventionError, ItemError: As in `study`.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> forecast = mi.forecast_study(lalm, items, layers=[4, 5], items_limit=6, progress=False)
        >>> forecast.stages[-1].by_condition
        {'conflict': 2, 'congruent': 2, 'neutral': 2}
    """
    study = StudySettings.of(locals())
    configurations = study.configurations(lalm)
    splits = study.splits(lalm, items)
    return forecast_of(lalm, splits, configurations, None if out is None else Path(out), study)


def forecast_of(
    lalm: LALM,
    splits: StudySplits,
    configurations: Mapping[str, AttentionEdit],
    out: Path | None,
    study: StudySettings,
) -> StudyForecast:
    """The forecast of a study whose items are checked.

    Args:
        lalm: The model.
        splits: The items.
        configurations: Name -> configuration to choose from.
        out: The folder of the study; None for one that has not begun.
        study: The settings of the study.
    """
    settings, extras = study.stages, study.extras

    def file(name: str) -> Path | None:
        return None if out is None else out / name

    some = list(configurations.values())[len(configurations) // 2]  # which one is chosen is not known yet
    search = study.resolved_search(configurations, splits)
    tried = list(configurations.items())[:: COARSE if search == "coarse" else 1]
    grid = {BASELINE: None, **dict(tried)}
    sweep = forecast_sweep(lalm, splits.to_sweep, grid, settings, file(SWEEP))
    trace = forecast_trace(lalm, splits.to_trace, settings, out=file(TRACE))
    size = largest_batch(lalm, splits.to_match, settings, ())
    probe = Probe(
        lalm,
        splits.to_match,
        settings,
        DoseBatch(some, settings.prompt_format),
        lambda item: lalm.prompt(item, format=settings.prompt_format),
    )
    draws = random_layers(lalm.attention_layers, some.layers, DRAWS, settings.seed)
    in_heads = sum(name in IN_HEADS for name in extras.shams)
    strengths = 1 + EVALUATIONS * (1 + len(draws) + in_heads)  # MATA's own, and those of each sham
    work = f"up to {strengths} strengths"
    sham = probe.stage("matching the sham", work, size, file(SHAM), passes=strengths)
    if out is not None and (out / "manifest.json").exists():
        written = RunFolder(out).manifest["conditions"]
        conditions = {name: Condition.from_dict(data) for name, data in written.items()}
    else:
        alphas = dict.fromkeys(draws, some.alpha)
        heads = lalm.structure.heads
        planned = study_conditions(some, some.alpha, alphas, extras.shams, heads, settings.seed)
        conditions = {**bind_conditions(lalm, planned, study.decoding), **study.other_methods(lalm)}
    stages = (
        replace(sweep, name="choosing layers and alpha"),
        trace,
        sham,
        *_extra_stages(lalm, splits, configurations, conditions, out, settings, extras),
        measuring(lalm, splits, conditions, out, settings),
        _recording(lalm, splits, conditions, file(RECORDINGS), settings),
    )
    return whole_forecast(stages, splits)


def whole_forecast(stages: Sequence[StageForecast], splits: StudySplits) -> StudyForecast:
    """The forecast of a study of these stages, with what its primary comparison can detect.

    That comparison is on items whose caption contradicts the audio, or on all where there are none.
    """
    conflict = [item for item in splits.test.items if item.condition == CONFLICT]
    primary = conflict or splits.test.items
    return StudyForecast(
        tuple(stages),
        len({*splits.selection.excluded, *splits.test.excluded}),
        plan_power(len(primary), len({item.cluster for item in primary})),
    )


def _extra_stages(
    lalm: LALM,
    splits: StudySplits,
    configurations: Mapping[str, AttentionEdit],
    conditions: Mapping[str, Condition],
    out: Path | None,
    settings: StageSettings,
    extras: StudyExtras,
) -> list[StageForecast]:
    """The repetition of the baseline and the sweep of cross-fitting, if they were asked for."""
    stages = []
    if extras.repeat_baseline:
        other = replace(settings, batch_size=other_batch_size(settings.batch_size))
        folder = None if out is None else out / FOLDER
        baseline = {BASELINE: conditions[BASELINE]}
        again = measuring(lalm, splits, baseline, folder, other)
        stages.append(replace(again, name="repeating the baseline"))
    if extras.crossfit is not None:
        path = None if out is None else out / CROSSFIT_SWEEP
        sweep = forecast_sweep(lalm, splits.to_crossfit, {BASELINE: None, **configurations}, settings, path)
        stages.append(replace(sweep, name="cross-fitting"))
    return stages


def measuring(
    lalm: LALM,
    splits: StudySplits,
    conditions: Mapping[str, Condition],
    out: Path | None,
    settings: StageSettings,
) -> StageForecast:
    """The stage that tests: one item of medium length under all conditions, for each kind of audio."""
    test = splits.test
    batches = plan_batches(test.items, test.lengths, settings.batch_size)
    expected = len(batches) * len(conditions)
    written = 0 if out is None else len(list((out / "parts").glob("*.parquet")))
    seconds = None
    if written < expected:
        item = medium_item(test)
        partners = audio_partners(test.items, settings.seed)
        work = Work({item.id: item}, conditions, partners, settings.prompt_format)
        pace = 0.0
        kinds: list[AudioKind] = list(dict.fromkeys(each.audio for each in conditions.values()))
        for audio in kinds:
            names = tuple(name for name, condition in conditions.items() if condition.audio == audio)
            unit = Unit(0, 0, (item.id,), audio, names)
            pace += timed(lambda unit=unit: work.compute(lalm, unit)) / test.lengths[item.id]
        tokens = sum(len(batch) * max(test.lengths[item.id] for item in batch) for batch in batches)
        seconds = pace * tokens * (1 - written / expected)
    return StageForecast(
        name="measuring",
        items=len(test.items),
        clips=len(test.clusters),
        by_condition=count_by_condition(test.items),
        work=f"{len(conditions)} conditions",
        batches=len(batches),
        done=written // len(conditions),
        seconds=seconds,
        memory=forecast_memory(lalm, largest_batch(lalm, test, settings, conditions.values())),
    )


def _recording(
    lalm: LALM,
    splits: StudySplits,
    conditions: Mapping[str, Condition],
    out: Path | None,
    settings: StageSettings,
) -> StageForecast:
    """The stage that records attention over time for the page."""
    edits = {name: one.interventions for name, one in recorded_conditions(conditions).items()}
    probe = Probe(lalm, splits.test, settings, RecordBatch(edits, frozenset(), settings.prompt_format))
    size = largest_batch(lalm, splits.test, settings, ())
    return probe.stage("recording items", f"{len(edits)} conditions", size, out)
