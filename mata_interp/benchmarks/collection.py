"""Many items and what was left out of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from ..errors import ItemError
from .items import Item
from .records import item_of_record

__all__ = ["Exclusion", "Items"]


@dataclass(frozen=True)
class Exclusion:
    """One item that was left out: its id, the field at fault, and why."""

    item: str
    field: str
    reason: str

    @classmethod
    def of(cls, error: ItemError) -> Exclusion:
        return cls(error.item, error.field, f"{error.problem} {error.remedy}".strip())


@dataclass(frozen=True, eq=False, repr=False)
class Items(Sequence[Item]):
    """An immutable sequence of items, in the order of their file.

    Attributes:
        name: of the benchmark.
        sha256: of the data file.
        excluded: what was left out on the way here. The parts that `split`, `filter` and `head` return carry
            on the whole's exclusions; what they do not select was not left out and is not named.
    """

    _items: tuple[Item, ...]
    name: str
    sha256: str
    excluded: tuple[Exclusion, ...] = ()

    @classmethod
    def of(
        cls,
        entries: Iterable[Item | Mapping[str, Any]],
        name: str = "items",
        audio_root: str | Path | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Items:
        """Items from a list of them or of records; those that cannot be scored go to ``excluded``.

        Args:
            entries: items, or records with the columns of `load_benchmark`.
            name: of the collection.
            audio_root: of the items made from records.
            fields: field of an item -> the records' column, where it goes by another name.
        """
        kept: dict[str, Item] = {}
        excluded = []
        for number, entry in enumerate(entries, start=1):
            try:
                item = entry if isinstance(entry, Item) else item_of_record(entry, number, audio_root, fields)
                item.validate()
                if item.id in kept:
                    raise ItemError(item.id, "id", "an earlier item has the same id.", "Give each its own.")
                kept[item.id] = item
            except ItemError as error:
                excluded.append(Exclusion.of(error))
        content = "".join(f"{item.id}:{item.content_id}\n" for item in kept.values())
        return cls(tuple(kept.values()), name, hashlib.sha256(content.encode()).hexdigest(), tuple(excluded))

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

    def filter(self, **wanted: str | Collection[str]) -> Items:
        """The items whose fields have these values: ``filter(condition="conflict", domain=["sound"])``."""
        kept = self._items
        for field, values in wanted.items():
            allowed = {values} if isinstance(values, str) else set(values)
            kept = tuple(item for item in kept if getattr(item, field) in allowed)
        return replace(self, _items=kept)

    def validated(self, rate: int | None = None) -> Items:
        """Decode every sound once, at ``rate`` Hz, and leave out the items whose sound cannot be used."""
        faults: dict[Any, ItemError | None] = {}
        for item in self:
            if _sound(item) not in faults:
                faults[_sound(item)] = _fault(item, rate)
        bad = {item.id: fault for item in self if (fault := faults[_sound(item)])}
        return self._without(bad)

    def split(self, name: str, seed: int = 0, fraction: float = 1 / 3) -> Items:
        """The ``"selection"`` or the ``"confirmation"`` part; no cluster has items in both.

        Where the file's own ``split`` names a "selection", that is the selection and all other items are the
        confirmation; items of the selection whose cluster comes back in the confirmation are left out.
        Otherwise the clusters are shuffled by ``seed`` and ``fraction`` of them are the selection. An item
        without a ``source`` is clustered by its decoded sound, and left out if that cannot be decoded.
        """
        if name not in ("selection", "confirmation"):
            raise ValueError(f"No split {name!r}: choose 'selection' or 'confirmation'.")
        bad = {}
        for item in self:
            try:
                _ = item.cluster
            except ItemError as error:
                bad[item.id] = error
        whole = self._without(bad)
        if any(item.split == "selection" for item in whole):
            held = {item.cluster for item in whole if item.split != "selection"}
            leaks = (item for item in whole if item.split == "selection" and item.cluster in held)
            problem = "its recording is in the confirmation split, too."
            whole = whole._without({item.id: ItemError(item.id, "split", problem) for item in leaks})
            chosen = {item.cluster for item in whole} - held
        else:
            clusters = sorted({item.cluster for item in whole})
            order = np.random.default_rng(seed).permutation(len(clusters))
            chosen = {clusters[index] for index in order[: round(fraction * len(clusters))]}
        kept = (item for item in whole if (item.cluster in chosen) == (name == "selection"))
        return replace(whole, _items=tuple(kept))

    def sample(self, n: int, seed: int = 0) -> Items:
        """At most ``n`` items (but one clip at least), spread evenly over condition and kind, clips whole.

        Clips are taken in an order drawn with ``seed``: always the next one that has an item of the condition
        and kind with the fewest items so far. The items stay in the order of the file.
        """
        if n < 1:
            raise ValueError(f"head({n}) is no item: ask for one at least.")
        clips: dict[Any, list[Item]] = {}
        for item in self:
            clips.setdefault(item.source or _sound(item), []).append(item)
        order = np.random.default_rng(seed).permutation(len(clips))
        waiting: dict[tuple[str, str], list[Any]] = {}
        names = list(clips)
        for clip in (names[index] for index in order):
            for cell in {(item.condition, item.kind) for item in clips[clip]}:
                waiting.setdefault(cell, []).append(clip)
        taken: set[Any] = set()
        counts: Counter[tuple[str, str]] = Counter()
        while waiting:
            cell = min(waiting, key=lambda cell: (counts[cell], cell))
            clip = waiting[cell].pop(0)
            if not waiting[cell]:
                del waiting[cell]
            fits = counts.total() + len(clips[clip]) <= n or not taken
            if clip not in taken and fits:
                taken.add(clip)
                counts.update((item.condition, item.kind) for item in clips[clip])
        kept = {id(item) for clip in taken for item in clips[clip]}
        return replace(self, _items=tuple(item for item in self if id(item) in kept))

    def _without(self, bad: Mapping[str, ItemError]) -> Items:
        """These items but for the bad ones, which are named in ``excluded``."""
        left_out = tuple(replace(Exclusion.of(error), item=name) for name, error in bad.items())
        kept = tuple(item for item in self if item.id not in bad)
        return replace(self, _items=kept, excluded=self.excluded + left_out)


def _sound(item: Item) -> Any:
    """Items with the same value have the same sound: told from where it lies, without decoding."""
    return id(item.audio) if isinstance(item.audio, tuple) else (str(item.audio), str(item.audio_root))


def _fault(item: Item, rate: int | None) -> ItemError | None:
    try:
        item.load_audio(rate)
    except ItemError as error:
        return error
    return None
