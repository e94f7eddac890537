"""The section of a run's page that lists its items and plays them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...errors import RunError
from ...experiments.conditions import Condition
from ...experiments.item_recordings import RECORDINGS, ItemRecording, ItemRecordings, load_recordings
from ...experiments.outcomes import OUTCOMES, outcomes_of, recorded_conditions
from ...experiments.results import Run
from ..parts import Content, Section
from ..wording import count, percent, printable
from .markup import item_view_markup, script, style
from .view_data import ViewCondition, ViewItem, view_data

__all__ = ["items_section", "recorded_ids"]

LABELS = {"baseline": "without MATA", "mata": "MATA", "sham_text": "same rule on text"}
MOST = 3000  # items in the table: with more, their texts alone would leave no room for audio

INTRO = (
    "Every item of the test with its answers, and the attention of the last prompt token to each moment of "
    "its audio. Attention is not contribution: an attended token need not affect the answer, and audio "
    "encoders blur time. "
)


def recorded_ids(run: Run) -> tuple[str, ...]:
    """Ids of the items whose audio was recorded; empty where none was, or where the file cannot be read."""
    try:
        recordings = _recordings(run)
    except RunError:
        return ()
    return () if recordings is None else tuple(i for i, one in recordings.items.items() if one.audio)


def items_section(run: Run) -> Section | None:
    """The items of a run with a baseline and an edit; None for other runs.

    Neither the model nor the benchmark is needed: everything is read from the run folder.

    Args:
        run: A run, or a study.
    """
    conditions = recorded_conditions(run.conditions)
    if len(conditions) < 2 or run.records.empty:
        return None
    problem = ""
    try:
        recordings = _recordings(run)
    except RunError as error:
        recordings, problem = None, str(error)
    edited = {layer for one in conditions.values() for edit in one.interventions for layer in edit.layers}
    items = list(_items(run, list(conditions), recordings))
    data = view_data(
        [ViewCondition(_label(name, one), name) for name, one in conditions.items()],
        items[:MOST],
        layers=recordings.layers if recordings else (),
        edited=sorted(edited),
        outcomes=OUTCOMES,
    )
    content: list[Content] = [("text", INTRO + _what_is_recorded(recordings, data.items))]
    unlisted = ""
    if len(items) > MOST:
        unlisted = (
            f"The table has {MOST:,} of {len(items):,} items: those with audio, then in the order of the run."
        )
    for text in (problem, unlisted, _failures(recordings), *data.notes):
        if text:
            content.append(("text", text))
    content.append(("html", item_view_markup(data)))
    return Section("items", "Items", content, style=style(), script=script(), leading=True)


def _label(name: str, condition: Condition) -> str:
    """What a study calls a condition; the name that a plain run gave it."""
    return printable(name, 40) if condition.role is None else LABELS[condition.role]


def _recordings(run: Run) -> ItemRecordings | None:
    if run.path is None or not (run.path / RECORDINGS).exists():
        return None
    return load_recordings(run.path / RECORDINGS)


def _what_is_recorded(recordings: ItemRecordings | None, items: Sequence[Mapping[str, Any]]) -> str:
    if recordings is None:
        return (
            "Neither attention nor audio is recorded in this folder; mata-interp report FOLDER --add-items "
            "ID,ID adds them."
        )
    heads = sum(item["heads"] is not None for item in items)
    audio = sum(item["audio"] is not None for item in items)
    return (
        f"Of all items the means over heads are recorded; of {count(heads, 'item')} every head, and of "
        f"{audio} the audio, drawn at random from each outcome."
    )


def _failures(recordings: ItemRecordings | None) -> str:
    if recordings is None or not recordings.failed:
        return ""
    item, problem = next(iter(recordings.failed.items()))
    failed = len(recordings.failed) / len(recordings.items)
    return (
        f"{count(len(recordings.failed), 'item')} ({percent(failed)}) could not be recorded in full, the "
        f"first: {printable(item, 60)}: {printable(problem, 200)}"
    )


def _items(run: Run, conditions: list[str], recordings: ItemRecordings | None) -> Iterator[ViewItem]:
    """One entry per item, those with audio first, then in the order of the records."""
    outcomes = outcomes_of(run.records, conditions[0], conditions[1])
    by_condition = {
        name: part.set_index("item").to_dict("index")
        for name, part in run.records.groupby("condition")
        if name in conditions
    }
    claims = run.manifest.get("caption_answers", {})
    known: Mapping[str, ItemRecording] = recordings.items if recordings else {}
    ids = [id for id in by_condition.get(conditions[0], {}) if id in outcomes]
    for id in sorted(ids, key=lambda id: id not in known or not known[id].audio):
        rows = [by_condition.get(name, {}).get(id) for name in conditions]
        first: dict[str, Any] = rows[0] or {}
        treated: dict[str, Any] = rows[1] or {}
        yield ViewItem(
            id=str(id),
            outcome=outcomes[id],
            task=str(first["kind"] or first["domain"] or ""),
            domain=str(first["domain"] or ""),
            caption_kind=str(first["caption_condition"] or ""),
            dose=treated.get("dose_kl"),
            choices=tuple(first["choices"] if first["choices"] is not None else ()),
            answer=first["answer"],
            claimed=claims.get(id),
            rows=rows,
            recording=known.get(id),
            how_to_add=f"mata-interp report {shlex.quote(str(run.path))} --add-items {shlex.quote(str(id))}",
        )
