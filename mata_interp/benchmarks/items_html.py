"""A collection of items as HTML for notebooks: a table of the first items, with players."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ItemError
from ..markup import frame, line, player, table
from .items import Item

if TYPE_CHECKING:
    from .collection import Items

__all__ = ["items_html"]

SHOWN, PLAYED = 5, 3
SECONDS = 30  # of a clip in a player
RATE = 16_000  # Hz; a notebook should stay small


def items_html(items: Items) -> str:
    """Number of items, the first of them, and players for the clips of the first."""
    rows = [
        [
            item.id,
            _players(item) if number < PLAYED else "",
            item.question,
            " | ".join(item.choices),
            item.answer or "",
            item.caption or "",
        ]
        for number, item in enumerate(items[:SHOWN])
    ]
    columns = ["item", "audio", "question", "options", "answer", "caption"]
    notes = [f"{len(items) - SHOWN:,} more items"] if len(items) > SHOWN else []
    if items.excluded:
        first = items.excluded[0]
        notes.append(
            f"{len(items.excluded):,} left out, the first: {first.item}, {first.field}: {first.reason}"
        )
    return frame(
        f"{items.name}: {len(items):,} items", table(columns, rows), line("; ".join(notes), small=True)
    )


def _players(item: Item) -> str:
    """A player of the item's clips one after the other; why there is none, if they cannot be decoded."""
    try:
        clips = list(item.load_clips(RATE))
    except ItemError as error:
        return f"no audio: {error.problem}"
    if len(clips) > 1:
        return f"{len(clips)} clips"
    return player(clips[0].samples[: SECONDS * RATE], RATE)
