"""What a page of limited size leaves out: detail of means, then heads, then audio, then long texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .packing import pack_attention

__all__ = ["LIMIT", "coarser", "fit"]

LIMIT = 6_500_000  # bytes of items in a page of 8 MB; figures and tables have the rest
MEANS = 3_000_000  # of these, for the means of items without heads
LEAST_BINS = 8
TEXT = 300  # characters of a text that is cut

Entry = dict[str, Any]


def size(entries: Sequence[Entry], *names: str) -> int:
    """Bytes that these fields of all entries take, about."""
    return sum(_length(entry.get(name)) for entry in entries for name in names)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", errors="replace"))
    if isinstance(value, dict):
        return sum(map(_length, value.values()))
    return sum(map(_length, value)) if isinstance(value, list | tuple) else 8


def coarser(mean: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Attention [..., bins] and edges [bins + 1] with pairs of bins as one: their masses add up."""
    starts = np.arange(0, mean.shape[-1], 2)
    return np.add.reduceat(mean.astype(np.float64), starts, -1), np.append(edges[starts], edges[-1])


def fit(entries: list[Entry], limit: int = LIMIT) -> list[str]:
    """Take out of the entries what is over the limit; returns sentences that say what was left out.

    Args:
        entries: Items as the page has them; they are changed.
        limit: Bytes of all of them.
    """
    notes = []
    steps: list[tuple[str, tuple[str, ...], Callable[[Entry], None]]] = [
        ("The heads of {n} are left out", ("heads",), lambda entry: _drop(entry, "heads")),
        ("The audio of {n} is left out", ("audio", "media"), lambda entry: _drop(entry, "audio", "media")),
        ("The attention of {n} is left out", ("mean", "heads"), lambda entry: _drop(entry, "mean", "heads")),
        (f"Texts of {{n}} are cut to {TEXT} characters", ("question", "caption", "text"), _cut_texts),
    ]
    for sentence, names, drop in steps:
        over = _total(entries) - limit
        dropped = 0
        for entry in reversed(entries):
            if over <= 0:
                break
            before = size([entry], *names)
            drop(entry)
            saved = before - size([entry], *names)
            over -= saved
            dropped += saved > 0
        if dropped:
            items = f"{dropped:,} item{'s' if dropped > 1 else ''}"
            notes.append(f"{sentence.format(n=items)}, so that this page stays below 8 MB.")
    return notes


def _total(entries: Sequence[Entry]) -> int:
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", errors="replace"))


def _drop(entry: Entry, *names: str) -> None:
    for name in names:
        entry[name] = None


def _cut_texts(entry: Entry) -> None:
    for name in ("question", "caption"):
        entry[name] = cut(entry[name])
    entry["text"] = [text and cut(text) for text in entry["text"]]


def cut(text: str, length: int = TEXT) -> str:
    """The text, cut to a number of characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "\u2026"


def pack_means(
    means: Sequence[np.ndarray], edges: Sequence[np.ndarray], limit: int = MEANS
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Packed means of items and their edges, with as many bins as fit into the limit.

    Args:
        means: [conditions, layers, bins] each.
        edges: [bins + 1] each, in seconds.
        limit: Bytes of all means.
    """
    while True:
        packed = [pack_attention(mean[:, :, None]) for mean in means]
        longest = max((mean.shape[-1] for mean in means), default=0)
        if size([{"mean": one} for one in packed], "mean") <= limit or longest < 2 * LEAST_BINS:
            return packed, list(edges)
        merged = [coarser(mean, edge) for mean, edge in zip(means, edges, strict=True)]
        means, edges = [mean for mean, _ in merged], [edge for _, edge in merged]
