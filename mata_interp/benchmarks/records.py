"""From one record of a data file to an `Item`, whatever the file calls its columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ItemError
from .items import Item

__all__ = ["COLUMNS", "item_of_record"]

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "audio": ("audio_id", "audio_path", "audio"),
    "question": ("question",),
    "choices": ("choices",),
    "answer": ("answer",),
    "caption": ("caption",),
    "domain": ("task", "modality", "domain"),
    "kind": ("sub-category", "kind"),
    "condition": ("condition",),
    "caption_answer": ("caption_answer",),
    "split": ("split",),
    "source": ("clip", "url", "source"),
}
"""For each field of an item the columns it may be in; the first that a record has is taken.

The names are those of MMAU, of MMAR and our own. MMAR's ``source`` says only which site a recording is from,
so ``url`` goes before it.
"""


def item_of_record(
    record: Mapping[str, Any],
    number: int,
    audio_root: str | Path | None = None,
    fields: Mapping[str, str] | None = None,
) -> Item:
    """The item that a record describes; columns which no field takes go to ``extra``.

    Args:
        record: column -> value, as JSON or CSV gives them.
        number: of the record in its file, from 1: its name in errors if it has no id.
        audio_root: the item's.
        fields: field of an item -> the column it is in, in place of COLUMNS.

    Raises:
        ItemError: the record is not an object, or a value is not of its field's type.
    """
    if not isinstance(record, Mapping):
        raise ItemError(f"record {number}", "record", f"{record!r} is not an object.")
    candidates = COLUMNS | {field: (column,) for field, column in (fields or {}).items()}
    column = {
        field: next((name for name in names if name in record), "") for field, names in candidates.items()
    }
    name = _text(record.get(column["id"])) or f"record {number}"

    def text(field: str) -> str:
        value = _text(record.get(column[field]))
        if value is None:
            raise ItemError(name, field, f"{record[column[field]]!r} is not a text.")
        return value

    audio = record.get(column["audio"]) or None
    if not isinstance(audio, str | Path | tuple | None):
        raise ItemError(name, "audio", f"{audio!r} is not a path.")
    extra = {key: value for key, value in record.items() if key not in column.values()}
    if isinstance(extra.get("category"), list):  # 13 items of MMAU have it so, the others as a text
        extra["category"] = _text(extra["category"])
    return Item(
        audio=audio,
        question=text("question"),
        choices=_choices(record.get(column["choices"]), name),
        answer=text("answer") or None,
        id=text("id"),
        caption=text("caption"),
        domain=text("domain"),
        kind=text("kind"),
        condition=text("condition"),
        caption_answer=text("caption_answer") or None,
        split=text("split"),
        source=text("source"),
        audio_root=audio_root,
        extra=extra,
    )


def _text(value: Any) -> str | None:
    """A value as text without space around it: a list of texts is joined by commas, nothing is ``""``.

    ``None`` for what is no text. MMAU and MMAR have answers that differ from their option by such a space.
    """
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value).strip()
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return None


def _choices(value: Any, name: str) -> list[str]:
    """Options as a list of texts; a single text, as in a CSV, is a JSON list or has ``|`` between them."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split("|")
        except ValueError as error:
            raise ItemError(name, "choices", f"{value!r} is not a JSON list: {error}") from error
    if value is None:
        return []
    if not isinstance(value, list | tuple) or not all(isinstance(part, str | int | float) for part in value):
        raise ItemError(name, "choices", f"{value!r} is not a list of texts.")
    return [str(part).strip() for part in value]
