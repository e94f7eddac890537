"""mi.record_items: attention over time, heads and audio of a run's items, for the item view of its page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..benchmarks import Item, Items
from ..benchmarks.entries import as_items
from ..errors import ItemError, MataError, RunError
from ..execution import MeasuredBatch, Output, measure_batches, refuse_other_work
from ..execution.notices import warn
from ..interventions import AttentionEdit
from ..lalm.batching import in_parts
from ..tracing.over_time import attention_over_time
from .clip_media import clip_media
from .folder import refuse_other_run
from .identity import identity
from .item_recordings import (
    RECORDINGS,
    ItemRecording,
    ItemRecordings,
    joined,
    load_recordings,
    read_archive,
)
from .manifest import known_beforehand
from .outcomes import choose_examples, outcomes_of, recorded_conditions
from .planning import StageSettings
from .results import Run

if TYPE_CHECKING:
    from ..lalm import LALM, Prompt

__all__ = ["RecordBatch", "detailed_recording", "record_items", "record_or_warn", "record_run"]

EXAMPLES = 6  # of each outcome get heads and audio
Edits = tuple[AttentionEdit, ...]


def record_items(
    lalm: LALM, run: Run, items: Items | Sequence[Item], ids: Iterable[str] = (), *, progress: bool = True
) -> ItemRecordings:
    """Record items of a run that its study did not record in full, so that its page can play them.

    A study records the attention over time of every tested item, and heads and audio of 24 of them. This
    adds heads and audio of others to ``items.npz`` in the run folder; `report` then writes the page again. It
    also records a plain run, or one that was computed before items were recorded.

    Args:
        lalm: The model of the run.
        run: A run in a folder, with a baseline.
        items: The items of the run's benchmark; those that the run does not have are ignored.
        ids: Ids of the items whose heads and audio are recorded. With none, 24 are drawn: six of each
            outcome.
        progress: Report progress.

    Returns:
        The recordings, as they stand in the file.

    Warns:
        RunWarning: Some items could not be recorded.

    Raises:
        RunError: The run is not in a folder, has no baseline, does not have an item, or is of another model.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[:2]
        >>> conditions = {"baseline": None, "mata": mi.Mata(1.0, [4, 5])}
        >>> run = mi.run(lalm, items, conditions, out="recorded-run", progress=False)
        >>> mi.record_items(lalm, run, items, [items[1].id], progress=False)
        <ItemRecordings: 2 items, 1 with heads or audio>
    """
    if run.path is None:
        raise RunError("This run is in memory alone, and recordings go to its folder: save it, and load it.")
    _refuse_other_model(lalm, run)
    known = {item.id: item for item in as_items(items)}
    recorded = set(map(str, run.records["item"].unique()))
    ids = tuple(dict.fromkeys(ids))
    if unknown := [id for id in ids if id not in recorded or id not in known]:
        raise RunError(
            f"Item {unknown[0]!r} cannot be recorded: "
            + (
                "the run does not have it."
                if unknown[0] not in recorded
                else "it is not among the items given."
            )
        )
    path = run.path / RECORDINGS
    settings = _settings(run, progress)
    if not path.exists():
        done = record_run(lalm, run, [item for id, item in known.items() if id in recorded], settings, ids)
    else:
        done = load_recordings(path)
        missing = [known[id] for id in ids if id not in done.detailed]
        record = RecordBatch.of(run, frozenset(ids))
        done = done.updated(record.record(lalm, item) for item in missing)
        _, notes = read_archive(path)
        done.save(path, notes.get("identity"))
        _report_failures(done)
    return done


def record_run(
    lalm: LALM, run: Run, items: Sequence[Item], settings: StageSettings, ids: Collection[str] = ()
) -> ItemRecordings:
    """Record every item of a run, and write ``items.npz``; the same call continues one that was stopped.

    Args:
        lalm: The model.
        run: A run in a folder, with a baseline.
        items: Its items.
        settings: How the stage is computed.
        ids: Items with heads and audio; with none, `EXAMPLES` of each outcome are drawn.

    Raises:
        RunError: The run has no baseline; the file cannot be written, or holds recordings of other items.
    """
    assert run.path is not None
    conditions = recorded_conditions(run.conditions)
    if not conditions:
        raise RunError(f"{run.path} has no condition with the role 'baseline', which recordings start from.")
    names = list(conditions)
    if not ids and len(names) > 1:
        outcomes = outcomes_of(run.records, names[0], names[1])
        ids = choose_examples(outcomes, EXAMPLES, settings.seed)
    path = run.path / RECORDINGS
    chosen = sorted(ids)
    content = {"stage": "recording of items", "chosen": chosen, **identity(run.manifest)}
    if path.exists():
        _, notes = read_archive(path)
        refuse_other_work(
            path, {**notes["identity"], "chosen": chosen}, content
        )  # others may have been added
        return load_recordings(path)
    by_id = {item.id: item for item in items}
    batches = [[by_id[id] for id in batch["items"] if id in by_id] for batch in run.manifest["batches"]]
    output = Output(path, content)
    parts = measure_batches(
        lalm,
        replace(RecordBatch.of(run, frozenset(ids)), prompt_format=settings.prompt_format),
        [batch for batch in batches if batch],
        label="recording items",
        progress=settings.progress,
        parts=output.parts(lalm),
        ray=settings.ray or False,
    )
    done = replace(joined([(part.arrays, part.notes) for part in parts]), seed=settings.seed)
    done.save(path, content)
    output.remove_parts()
    _report_failures(done)
    return done


def record_or_warn(lalm: LALM, run: Run, items: Sequence[Item], settings: StageSettings) -> None:
    """`record_run`, with a warning in place of an error: a study does not need recordings.

    Args:
        lalm, run, items, settings: As in `record_run`.

    Warns:
        RunWarning: Items could not be recorded.
    """
    try:
        record_run(lalm, run, items, settings)
    except MataError as error:
        warn(f"No item is recorded for the page: {error}")


def _settings(run: Run, progress: bool) -> StageSettings:
    """Those that the run was computed with."""
    manifest = run.manifest
    return StageSettings(
        manifest["batch_size"], progress, manifest["seed"], manifest.get("prompt_format", "options")
    )


def _refuse_other_model(lalm: LALM, run: Run) -> None:
    """Raise a RunError if the run is of another model, template or wording."""
    assert run.path is not None
    settings = _settings(run, False)
    known = known_beforehand(lalm, run.conditions, settings.batch_size, settings.seed, settings.prompt_format)
    refuse_other_run(run.path, known)


def _report_failures(done: ItemRecordings) -> None:
    if done.failed:
        item, problem = next(iter(done.failed.items()))
        warn(f"{len(done.failed)} item(s) could not be recorded in full, the first: {item!r}: {problem}")


@dataclass(frozen=True)
class RecordBatch:
    """Records one batch of items. A failure is noted with the item, and ends nothing.

    Attributes:
        conditions: Name -> edits of each recorded condition.
        detailed: Ids of the items whose heads and audio are recorded.
        prompt_format: One of PROMPT_FORMATS.
    """

    conditions: Mapping[str, Edits]
    detailed: frozenset[str]
    prompt_format: str

    @classmethod
    def of(cls, run: Run, detailed: frozenset[str]) -> RecordBatch:
        """For a run."""
        conditions = {name: one.interventions for name, one in recorded_conditions(run.conditions).items()}
        return cls(conditions, detailed, run.manifest.get("prompt_format", "options"))

    def __call__(self, lalm: LALM, batch: Sequence[Item]) -> MeasuredBatch:
        try:
            recordings = self._attention(lalm, batch)
        except Exception:  # which item it was shows one by one
            recordings = [self._alone(lalm, item) for item in batch]
        done = [self._with_media(lalm, item, one) for item, one in zip(batch, recordings, strict=True)]
        recordings = ItemRecordings(
            tuple(self.conditions), lalm.attention_layers, {one.item: one for one in done}
        )
        arrays, notes = recordings.to_arrays()
        return MeasuredBatch(arrays, notes)

    def record(self, lalm: LALM, item: Item) -> ItemRecording:
        """The recording of one item."""
        return self._with_media(lalm, item, self._alone(lalm, item))

    def _alone(self, lalm: LALM, item: Item) -> ItemRecording:
        try:
            return self._attention(lalm, [item])[0]
        except Exception as error:
            return ItemRecording(item.id, item.question, item.caption, problem=f"attention: {_reason(error)}")

    def _attention(self, lalm: LALM, items: Sequence[Item]) -> list[ItemRecording]:
        """Attention over time of items in one batch, which is halved where memory runs out."""
        prompt = lalm.prompt(items, format=self.prompt_format)
        cut = dict(zip([item.id for item in items], prompt.truncated_seconds, strict=True))
        edits = list(self.conditions.values())
        done: list[ItemRecording] = []

        def measure(part: Prompt) -> None:
            ends = [clip_ends(lalm, item) for item in part.items]
            measured = attention_over_time(lalm, part, ends, edits)
            for row, item in enumerate(part.items):
                heads, edges = measured.of(row)
                recording = ItemRecording(
                    item.id,
                    item.question,
                    item.caption,
                    edges=edges,
                    mean=np.nanmean(heads, 2),
                    heads=heads if item.id in self.detailed else None,
                    clip_starts=tuple(ends[row][:-1].tolist()),
                    truncated_seconds=float(cut[item.id]),
                )
                done.append(recording)

        in_parts(lalm, prompt, measure, self.prompt_format)
        return done

    def _with_media(self, lalm: LALM, item: Item, recording: ItemRecording) -> ItemRecording:
        """The recording with audio, if the item is to have it."""
        if item.id not in self.detailed:
            return recording
        try:
            return with_media(recording, audio_of(lalm, item), lalm.sampling_rate)
        except Exception as error:
            return replace(recording, problem=_joined(recording.problem, f"audio: {_reason(error)}"))


def detailed_recording(lalm: LALM, prompt: Prompt, conditions: Sequence[Edits]) -> ItemRecording:
    """The full recording of a prompt of one item.

    Args:
        lalm: The model.
        prompt: One row.
        conditions: Edits of each condition, in order.
    """
    item = prompt.items[0]
    ends = clip_ends(lalm, item)
    heads, edges = attention_over_time(lalm, prompt, [ends], conditions).of(0)
    recording = ItemRecording(
        item.id,
        item.question,
        item.caption,
        edges=edges,
        mean=np.nanmean(heads, 2),
        heads=heads,
        clip_starts=tuple(ends[:-1].tolist()),
        truncated_seconds=float(prompt.truncated_seconds[0]),
    )
    return with_media(recording, audio_of(lalm, item), lalm.sampling_rate)


def with_media(recording: ItemRecording, samples: np.ndarray, rate: int) -> ItemRecording:
    """The recording with the audio, waveform and spectrogram of mono samples."""
    media = clip_media(samples, rate)
    return replace(
        recording,
        audio=media.audio,
        peaks=media.peaks,
        spectrogram=media.spectrogram,
        top_hz=media.top_hz,
        problem=_joined(recording.problem, f"audio: {media.problem}" if media.problem else ""),
    )


def clip_ends(lalm: LALM, item: Item) -> np.ndarray:
    """Where the clips that the model receives begin and end, in seconds, one after the other."""
    return np.cumsum([0, *map(len, _clips(lalm, item))]) / lalm.sampling_rate


def audio_of(lalm: LALM, item: Item) -> np.ndarray:
    """The samples that the model receives, all clips one after the other."""
    return np.concatenate(_clips(lalm, item))


def _clips(lalm: LALM, item: Item) -> list[np.ndarray]:
    clips: Iterable[np.ndarray] = (clip.samples for clip in item.load_clips(lalm.sampling_rate))
    samples_within: Callable[[int], int] = lalm.audio_limit.usable_samples
    return [clip[: samples_within(len(clip))] for clip in clips]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    return text if isinstance(error, ItemError | MataError) else f"{type(error).__name__}: {text}"


def _joined(*problems: str) -> str:
    return "; ".join(problem for problem in problems if problem)
