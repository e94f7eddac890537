"""Collections of items, and the record of what was left out of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from ..errors import BenchmarkError, ItemError
from .clusters import SharedClips, connected_components
from .items import Item
from .items_html import items_html
from .records import record_to_item
from .rows import as_record, as_records
from .values import quote

__all__ = ["SPLITS", "Exclusion", "Items"]

SPLITS = ("selection", "confirmation")


@dataclass(frozen=True)
class Exclusion:
    """One item that was left out.

    Attributes:
        item: id of the item.
        field: the field at fault.
        reason: what is wrong with it.
    """

    item: str
    field: str
    reason: str

    @classmethod
    def from_error(cls, error: ItemError) -> Exclusion:
        """The exclusion of the item that an error names."""
        return cls(error.item, error.field, f"{error.problem} {error.remedy}".strip())


@dataclass(frozen=True, eq=False, repr=False)
class Items(Sequence[Item]):
    """An immutable sequence of items, in the order of their file.

    Attributes:
        name: name of the benchmark.
        sha256: hash of the data file, or of the items' content if there is no file.
        excluded: items that were left out, with the reasons. The parts that `split`, `filter` and `sample`
            return have the exclusions of the whole; items that a part does not select are not exclusions.

    Examples:
        >>> records = [{"id": "q0", "question": "Who?", "choices": ["a", "b"], "answer": "a"}, {"id": "q1"}]
        >>> items = Items.from_records(records)
        >>> items
        <Items 'items': 1 items, 1 left out>
        >>> items[0].answer, items.excluded[0].field
        ('a', 'question')
    """

    _items: tuple[Item, ...]
    name: str
    sha256: str
    excluded: tuple[Exclusion, ...] = ()

    @classmethod
    def from_records(
        cls,
        records: Iterable[Item | Mapping[str, Any]],
        name: str = "items",
        audio_root: str | Path | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Items:
        """Items from records or from items; those that cannot be scored go to ``excluded``.

        Where a record's split is ``"selection"``, all other splits become ``"confirmation"``, whatever their
        name in the file (such as ``"test"``), so that ``Item.split`` and `split` agree.

        Args:
            records: records with the columns of `load_benchmark`, a pandas table, a dataset of the datasets
                library, or items.
            name: name of the collection.
            audio_root: folder that audio paths of records start from and may not leave.
            fields: field of an item -> its column, where the records have another name for it.

        Raises:
            BenchmarkError: ``records`` is not a sequence of records.
        """
        if isinstance(records, str | bytes | Mapping | Item) or not isinstance(records, Iterable):
            raise BenchmarkError(f"{quote(records)} is not a list of records or items.")
        by_id: dict[str, Item] = {}
        excluded = []
        for number, record in enumerate(as_records(records), start=1):
            try:
                if isinstance(record, Item):
                    item = record
                else:
                    item = record_to_item(as_record(record) or record, number, audio_root, fields)
                item.validate()
                if item.id in by_id:
                    raise ItemError(item.id, "id", "an earlier item has the same id.", "Give each its own.")
                by_id[item.id] = item
            except ItemError as error:
                excluded.append(Exclusion.from_error(error))
        items = _with_shared_clips(_with_split_names(tuple(by_id.values())))
        return cls(items, name, _content_sha256(items), tuple(excluded))

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Items: ...
    def __getitem__(self, index: int | slice) -> Item | Items:
        return replace(self, _items=self._items[index]) if isinstance(index, slice) else self._items[index]

    def __repr__(self) -> str:
        return f"<Items {self.name!r}: {len(self)} items, {len(self.excluded)} left out>"

    @property
    def content_sha256(self) -> str:
        """Hash of the items' ids and content, whatever their order and the layout of their file."""
        return _content_sha256(sorted(self._items, key=lambda item: item.id))

    def filter(self, **values: str | Collection[str]) -> Items:
        """The items whose fields have the given values.

        Args:
            **values: field of `Item` -> a value, or a collection of values of which the item has one.

        Raises:
            BenchmarkError: an item has no such field.

        Examples:
            >>> from mata_interp.benchmarks import load_benchmark
            >>> items = load_benchmark("listening").filter(condition="conflict", domain=["speech", "music"])
            >>> len(items), {item.condition for item in items}
            (300, {'conflict'})
        """
        names = [field.name for field in fields(Item) if field.name != "shared_clips"]
        selection = self._items
        for field, value in values.items():
            if field not in names:
                raise BenchmarkError(f"An item has no field {field!r}: choose among {', '.join(names)}.")
            allowed = {value} if isinstance(value, str) else set(value)
            selection = tuple(item for item in selection if getattr(item, field) in allowed)
        return replace(self, _items=selection)

    def drop_undecodable(self, rate: int | None = None) -> Items:
        """Decode every clip once, and leave out the items whose audio cannot be decoded.

        Args:
            rate: sampling rate to decode at, Hz; ``None`` for each file's own.
        """
        faults: dict[Any, ItemError | None] = {}
        for item in self:
            key = _audio_key(item)
            if key not in faults:
                faults[key] = _decoding_error(item, rate)
        errors = {item.id: error for item in self if (error := faults[_audio_key(item)]) is not None}
        return self._without(errors)

    def split(self, name: str, seed: int = 0, fraction: float = 1 / 3) -> Items:
        """The selection part or the confirmation part of the items; no cluster has items in both.

        Where items have the split ``"selection"``, these are the selection and all other items are the
        confirmation; items of the selection whose cluster is also in the confirmation are left out. Otherwise
        the clusters are shuffled, and a fraction of them is the selection. An item without a ``source`` is
        clustered by its decoded audio, and left out if that cannot be decoded.

        Args:
            name: ``"selection"`` or ``"confirmation"``.
            seed: of the shuffle, where the items have no splits of their own.
            fraction: fraction of clusters in the selection, where the items have no splits of their own.

        Raises:
            BenchmarkError: there is no such part.

        Examples:
            >>> from mata_interp.benchmarks import load_benchmark
            >>> items = load_benchmark("listening")
            >>> len(items.split("selection")), len(items.split("confirmation"))
            (600, 1200)
        """
        if name not in SPLITS:
            raise BenchmarkError(f"No split {quote(name)}: choose 'selection' or 'confirmation'.")
        errors = {}
        for item in self:
            try:
                _ = item.cluster
            except ItemError as error:
                errors[item.id] = error
        items = self._without(errors)
        if any(item.split == "selection" for item in items):
            confirmation = {item.cluster for item in items if item.split != "selection"}
            problem = "its recording is in the confirmation split, too."
            shared = {
                item.id: ItemError(item.id, "split", problem)
                for item in items
                if item.split == "selection" and item.cluster in confirmation
            }
            items = items._without(shared)
            selection = {item.cluster for item in items} - confirmation
        else:
            clusters = sorted({item.cluster for item in items})
            order = np.random.default_rng(seed).permutation(len(clusters))
            selection = {clusters[index] for index in order[: round(fraction * len(clusters))]}
        part = tuple(item for item in items if (item.cluster in selection) == (name == "selection"))
        return replace(items, _items=part)

    def sample(self, n: int, seed: int = 0) -> Items:
        """A random sample of at most ``n`` items, balanced over condition and kind, with all items of each
        clip.

        Clips are taken in random order: each time the first one that has an item of the condition and kind
        with the fewest items so far, and that still fits into ``n``. All items of a clip are taken together,
        so the sample may have fewer than ``n`` items; it has more only if a single clip has more. The items
        stay in the order of the file.

        Args:
            n: largest number of items, 1 or more.
            seed: of the random order.

        Raises:
            BenchmarkError: ``n`` is less than 1.

        Examples:
            >>> from mata_interp.benchmarks import load_benchmark
            >>> items = load_benchmark("listening").sample(10)  # a clip has three items
            >>> len(items), len({item.source for item in items})
            (9, 3)
        """
        if n < 1:
            raise BenchmarkError(f"sample({n}) would have no items: n must be 1 or more.")
        clips: dict[Any, list[Item]] = {}
        keys = [[item.source] if item.source else _audio_key(item) for item in self]
        for item, clip in zip(self, connected_components(keys), strict=True):
            clips.setdefault(clip, []).append(item)
        names = list(clips)
        order = np.random.default_rng(seed).permutation(len(clips))
        waiting: dict[tuple[str, str], list[Any]] = {}  # (condition, kind) -> clips in random order
        for clip in (names[index] for index in order):
            for cell in {(item.condition, item.kind) for item in clips[clip]}:
                waiting.setdefault(cell, []).append(clip)
        chosen_clips: set[Any] = set()
        counts: Counter[tuple[str, str]] = Counter()
        while waiting:
            cell = min(waiting, key=lambda cell: (counts[cell], cell))
            clip = waiting[cell].pop(0)
            if not waiting[cell]:
                del waiting[cell]
            fits = counts.total() + len(clips[clip]) <= n or not chosen_clips
            if clip not in chosen_clips and fits:
                chosen_clips.add(clip)
                counts.update((item.condition, item.kind) for item in clips[clip])
        ids = {id(item) for clip in chosen_clips for item in clips[clip]}
        return replace(self, _items=tuple(item for item in self if id(item) in ids))

    def _repr_html_(self) -> str:
        """A table of the first items, with players."""
        return items_html(self)

    def _without(self, errors: Mapping[str, ItemError]) -> Items:
        """The items without those that have an error, which go to ``excluded``."""
        excluded = tuple(replace(Exclusion.from_error(error), item=name) for name, error in errors.items())
        usable = tuple(item for item in self if item.id not in errors)
        return replace(self, _items=usable, excluded=self.excluded + excluded)


def _with_split_names(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Items whose splits are called selection and confirmation, where there is a selection."""
    if not any(item.split == "selection" for item in items):
        return items
    return tuple(item if item.split in SPLITS else replace(item, split="confirmation") for item in items)


def _content_sha256(items: Iterable[Item]) -> str:
    content = "".join(f"{item.id}:{item.content_id}\n" for item in items)
    return hashlib.sha256(content.encode()).hexdigest()


def _with_shared_clips(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Items that know with which others they share clips, where any of them has several."""
    if all(len(item.clips) < 2 for item in items):
        return items
    shared = SharedClips(items)
    return tuple(replace(item, shared_clips=shared) for item in items)


def _audio_key(item: Item) -> tuple[Any, ...]:
    """One key for each clip; clips with equal keys are the same, as known from their place, not decoded."""
    return tuple(
        id(clip) if isinstance(clip, tuple) else (str(clip), str(item.audio_root))
        for clip in item.clips or (item.audio,)
    )


def _decoding_error(item: Item, rate: int | None) -> ItemError | None:
    try:
        item.load_clips(rate)
    except ItemError as error:
        return error
    return None
