"""The data of the item view, as its script reads them."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...experiments.item_recordings import ItemRecording
from ..wording import number, printable
from .budget import LIMIT, fit, pack_means
from .packing import pack_attention, pack_media

__all__ = ["ViewCondition", "ViewData", "ViewItem", "view_data"]


@dataclass(frozen=True)
class ViewCondition:
    """A condition: what the view calls it, and its name in the run."""

    label: str
    name: str


@dataclass(frozen=True)
class ViewItem:
    """One item.

    Attributes:
        id: Unique in the view.
        outcome: What the edit did to the answer.
        task, domain, caption_kind: Labels to filter by.
        dose: Mean KL divergence of the edited attention rows, in nats; None where not known.
        choices, answer, claimed: The options, the correct one, and the one that the caption supports.
        rows: Answers under each condition: records with ``predicted`` and, where options were compared,
            ``logprob``; where an answer was generated, ``text``. None for a condition without an answer.
        recording: Attention and audio; None where nothing is recorded.
        how_to_add: A command that records this item in full; "" for none.
        name: What the table calls it; "": its question.
    """

    id: str
    outcome: str
    task: str
    domain: str
    caption_kind: str
    dose: float | None
    choices: tuple[str, ...]
    answer: str | None
    claimed: str | None
    rows: Sequence[Mapping[str, Any] | None]
    recording: ItemRecording | None
    how_to_add: str = ""
    name: str = ""


@dataclass(frozen=True)
class ViewData:
    """What the view shows.

    Attributes:
        conditions: In the order of all arrays.
        layers: Index in the decoder of each row of the map.
        edited: The layers that MATA edits.
        outcomes: Those to filter by.
        items: One dict per item.
        edges: Edges of time bins in seconds; items refer to them by number, as many are alike.
        notes: What was left out so that the page stays small.
    """

    conditions: Sequence[ViewCondition]
    layers: Sequence[int]
    edited: Sequence[int]
    outcomes: Sequence[str]
    items: Sequence[Mapping[str, Any]]
    edges: Sequence[Sequence[float]]
    notes: Sequence[str] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        names = ("layers", "edited", "outcomes", "items", "edges")
        labels = [{"label": printable(one.label, 60)} for one in self.conditions]
        return {"conditions": labels, **{name: list(getattr(self, name)) for name in names}}


def view_data(
    conditions: Sequence[ViewCondition],
    items: Sequence[ViewItem],
    *,
    layers: Sequence[int],
    edited: Sequence[int],
    outcomes: Sequence[str],
    limit: int = LIMIT,
) -> ViewData:
    """The data of items, made to fit into a page.

    Args:
        conditions, layers, edited, outcomes: As in `ViewData`.
        items: The items, those that should keep their heads and audio first.
        limit: Bytes that the items may take.
    """
    entries = [_entry(item, len(conditions)) for item in items]
    edges = _with_attention(entries, items)
    notes = fit(entries, limit)
    for entry, item in zip(entries, items, strict=True):
        entry["notices"] = _notices(entry, item)
    return ViewData(conditions, layers, edited, outcomes, entries, edges, notes)


def _entry(item: ViewItem, conditions: int) -> dict[str, Any]:
    """Everything about an item but its attention over time."""
    recording = item.recording or ItemRecording(item.id)
    place = {choice: n for n, choice in enumerate(item.choices)}
    rows = [row or {} for row in item.rows]
    rows += [{}] * (conditions - len(rows))
    media = None
    if recording.peaks is not None and recording.spectrogram is not None:
        media = pack_media(recording.peaks, recording.spectrogram, recording.top_hz)
    return {
        "id": item.id,
        "name": item.name,
        "outcome": item.outcome,
        "task": item.task,
        "domain": item.domain,
        "caption_kind": item.caption_kind,
        "dose": _rounded(item.dose),
        "question": recording.question,
        "caption": recording.caption,
        "choices": list(item.choices),
        "answer": place.get(item.answer),  # type: ignore[arg-type]
        "claimed": place.get(item.claimed),  # type: ignore[arg-type]
        "predicted": [place.get(row.get("predicted")) for row in rows],  # type: ignore[arg-type]
        "logprob": [_logprobs(row.get("logprob")) for row in rows],
        "text": [row.get("text") if isinstance(row.get("text"), str) else None for row in rows],
        "seconds": round(recording.seconds, 3),
        "clips": [round(start, 3) for start in recording.clip_starts],
        "edges": None,
        "mean": None,
        "heads": None,
        "audio": None if recording.audio is None else base64.b64encode(recording.audio).decode(),
        "media": media,
    }


def _rounded(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 5)


def _logprobs(values: Any) -> list[float | None] | None:
    return None if values is None or isinstance(values, float) else [_rounded(value) for value in values]


def _with_attention(entries: Sequence[dict[str, Any]], items: Sequence[ViewItem]) -> list[list[float]]:
    """Give each entry its packed attention; returns the edges that they refer to."""
    numbers: dict[tuple[float, ...], int] = {}
    plain_items: list[tuple[dict[str, Any], ItemRecording]] = []

    def number_of(edges: np.ndarray) -> int:
        return numbers.setdefault(tuple(np.round(edges, 4).tolist()), len(numbers))

    for entry, item in zip(entries, items, strict=True):
        recording = item.recording
        if recording is None or not recording.mean.size:
            continue
        if recording.heads is None:
            plain_items.append((entry, recording))
            continue
        entry["mean"] = pack_attention(recording.mean[:, :, None])
        entry["heads"] = pack_attention(recording.heads)
        entry["edges"] = number_of(recording.edges)
    means, edges = pack_means([one.mean for _, one in plain_items], [one.edges for _, one in plain_items])
    for (entry, _), mean, edge in zip(plain_items, means, edges, strict=True):
        entry["mean"], entry["edges"] = mean, number_of(edge)
    return [list(edges) for edges in numbers]


def _notices(entry: Mapping[str, Any], item: ViewItem) -> list[str]:
    """What the reader of one item has to know about its recording."""
    recording = item.recording
    add = f" To add them: {item.how_to_add}" if item.how_to_add else ""
    if recording is None:
        return [f"Attention and audio of this item are not recorded.{add}"]
    notices = []
    if recording.problem:
        notices.append(f"Could not be recorded: {printable(recording.problem, 400)}.")
    if recording.truncated_seconds > 0:
        cut = number(recording.truncated_seconds, 1)
        notices.append(f"The last {cut} s were cut, as the clip is too long for the model.")
    if entry["audio"] is None and recording.audio is not None:
        notices.append("The audio of this item is left out, so that the page stays below 8 MB.")
    elif entry["audio"] is None and not recording.problem:
        notices.append(f"Audio and heads of this item are not recorded.{add}")
    if entry["heads"] is None and recording.heads is not None:
        notices.append("The heads of this item are left out, so that the page stays below 8 MB.")
    return notices
