"""From one record of a data file to an `Item`, whatever the file calls its columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ItemError
from .audio import audio_sources, listed_paths
from .items import Item
from .option_phrases import letters_of
from .values import plain_value, quote, text_of

__all__ = ["COLUMNS", "find_column", "option_by_text_or_letter", "record_to_item"]

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
"""For each field of an item, the columns it may be in; the first that a record has is used.

The names are those of MMAU, of MMAR and of this package. A column with another case, such as ``Question``, is
used where there is no exact match. ``source`` of MMAR names only the website of a recording, so ``url`` comes
before it.
"""


def record_to_item(
    record: Mapping[str, Any],
    number: int,
    audio_root: str | Path | None = None,
    fields: Mapping[str, str] | None = None,
) -> Item:
    """The item that a record describes; columns that belong to no field go to ``extra``.

    Args:
        record: column -> value, as JSON, CSV or pandas give them. Missing values (None, NaN) mean that there
            is no value.
        number: number of the record in its file, from 1: its name in errors if it has no id.
        audio_root: folder that audio paths start from and may not leave.
        fields: field of an item -> its column, instead of those of ``COLUMNS``.

    Raises:
        ItemError: the record is not an object, or a value has a wrong type for its field.
    """
    if not isinstance(record, Mapping):
        raise ItemError(f"record {number}", "record", f"{quote(record)} is not an object.")
    columns = _find_columns(record, fields or {})
    values = {field: record[column] for field, column in columns.items()}
    name = text_of(values.get("id")) or f"record {number}"
    if None in record:  # from csv.DictReader
        cells = quote(record[None])  # type: ignore[call-overload]
        raise ItemError(name, "record", f"it has more cells than the header: {cells}.")

    def text(field: str) -> str:
        value = text_of(values.get(field))
        if value is None:
            raise ItemError(name, field, f"{quote(values[field])} is not a text.")
        return value

    options = _choices(values.get("choices"), name)
    used = set(columns.values())
    extra = {key: plain_value(value) for key, value in record.items() if key not in used}
    if isinstance(extra.get("category"), list):  # 13 items of MMAU have a list, the others a text
        extra["category"] = text_of(extra["category"])
    return Item(
        audio=audio_sources(listed_paths(values.get("audio")), name),
        question=text("question"),
        choices=options,
        answer=option_by_text_or_letter(text("answer"), options) or None,
        id=text("id"),
        caption=text("caption"),
        domain=text("domain"),
        kind=text("kind"),
        condition=text("condition"),
        caption_answer=option_by_text_or_letter(text("caption_answer"), options) or None,
        split=text("split"),
        source=text("source"),
        audio_root=audio_root,
        extra=extra,
    )


def find_column(record: Mapping[str, Any], field: str) -> str | None:
    """The column of a field by its known names: the first of the same case, else the only one of any case."""
    names = COLUMNS[field]
    exact = next((name for name in names if name in record), None)
    if exact is not None:
        return exact
    similar = [name for name in record if isinstance(name, str) and name.strip().lower() in names]
    return similar[0] if len(similar) == 1 else None


def _find_columns(record: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str]:
    """Field -> its column in this record, for the fields that it has. A column without a name is no field."""
    columns = {}
    for field in COLUMNS:
        column = fields[field] if field in fields else find_column(record, field)
        if column is not None and column in record:
            columns[field] = column
    return columns


def option_by_text_or_letter(text: str, options: Sequence[str]) -> str:
    """The option that a text is, or whose letter it is; else the text itself.

    A text that is an option is never a letter. Options may bring their letters along, as in ["B. cat", ...].
    """
    letter = re.fullmatch(r"\(?([A-Za-z])[).]?", text)
    if letter is None or text in options:
        return text
    labels, label = letters_of(options), letter[1].upper()
    return options[labels.index(label)] if label in labels else text


def _choices(value: Any, name: str) -> list[str]:
    """Options as a list of texts; a single text, as in a CSV, is a JSON list or has ``|`` between options."""
    value = plain_value(value)
    if isinstance(value, str):
        try:
            value = plain_value(json.loads(value)) if value.lstrip().startswith("[") else value.split("|")
        except ValueError as error:
            raise ItemError(name, "choices", f"{quote(value)} is not a JSON list: {error}") from error
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(part, str | int | float) for part in value):
        raise ItemError(name, "choices", f"{quote(value)} is not a list of texts.")
    return [str(part).strip() for part in value]
