"""Items and prompts as functions take them: in any iterable, as records, or as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import ArgumentTypeError, ItemError
from .collection import Exclusion, Items
from .items import Item
from .records import find_column, record_to_item
from .rows import as_record, as_records, described
from .values import quote, text_of

__all__ = ["Entries", "as_entries", "as_items"]


class Entries(list):
    """Items and prompts, in order.

    Attributes:
        excluded: records of which no item could be made.
    """

    excluded: tuple[Exclusion, ...] = ()


def as_entries(items: Any, prompt: type = Item) -> Items | Entries:
    """Items and prompts in a sequence, whatever they are given as; they are not validated.

    Args:
        items: an `Items` or `Entries`; an item, a prompt or a record (a mapping with the columns of
            `load_benchmark`); a pandas DataFrame or a dataset of the datasets library; or an iterable of
            items, prompts and records, such as a list or a generator, which is read once.
        prompt: the type of prompts.

    Returns:
        ``Items`` and ``Entries`` come back as they are. Records become items; those of which none can be made
        are in ``excluded``.

    Raises:
        ArgumentTypeError: it is none of these, or an entry is not an item.

    Examples:
        >>> record = {"audio": "a.wav", "question": "Who?", "choices": ["a dog", "a cat"]}
        >>> [item.question for item in as_entries(iter([record]))]
        ['Who?']
    """
    if isinstance(items, Items | Entries):
        return items
    alone = isinstance(items, Item | prompt) or as_record(items) is not None
    entries, excluded = Entries(), []
    for number, entry in enumerate([items] if alone else as_records(items), start=1):
        record = as_record(entry)
        if isinstance(entry, Item | prompt):
            entries.append(entry)
        elif record is None:
            raise ArgumentTypeError(
                f"entry {number} of the items is {described(entry)}: give an Item, a Prompt or a record."
            )
        else:
            try:
                entries.append(_item_of(record, number))
            except ItemError as error:
                excluded.append(Exclusion.from_error(error))
    if not entries and excluded and all(exclusion.field == "question" for exclusion in excluded):
        raise ArgumentTypeError(f"No entry of the items has a question; the first: {excluded[0].reason}")
    entries.excluded = tuple(excluded)
    return entries


def _item_of(record: Mapping[str, Any], number: int) -> Item:
    if find_column(record, "question") is None:
        name = text_of(record.get("id")) or f"record {number}"
        remedy = "Rename its columns, or use Items.from_records(..., fields=...)."
        raise ItemError(name, "question", f"there is none among {quote(list(record))}.", remedy)
    return record_to_item(record, number)


def as_items(items: Any) -> Items:
    """Validated items, from all that `as_entries` takes but prompts.

    Raises:
        ArgumentTypeError: it is neither an item nor an iterable of items or records.
    """
    entries = as_entries(items)
    if isinstance(entries, Items):
        return entries
    made = Items.from_records(entries)
    return replace(made, excluded=(*entries.excluded, *made.excluded))
