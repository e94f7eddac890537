"""One unit of work: a batch asked with one audio, under all conditions that share it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from ..benchmarks import Item
from ..errors import RunError
from .asking import ask
from .conditions import AudioKind, Condition
from .records import answer_records, word_records

if TYPE_CHECKING:
    from ..lalm import LALM, Prompt

    Asked = tuple[Prompt, list[dict[str, Any]]]

__all__ = ["Unit", "Work", "plan_units"]

_AUDIO: tuple[AudioKind, ...] = ("own", "other", "silence", "none")
_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


@dataclass(frozen=True)
class Unit:
    """What is computed at once and written part by part.

    Attributes:
        number: the same in every process that works on the run.
        batch: index in the manifest's batches.
        items: ids, in the order of the batch.
        audio: what is heard.
        conditions: the names of those wanted, which share the reading of the prompt.
    """

    number: int
    batch: int
    items: tuple[str, ...]
    audio: AudioKind
    conditions: tuple[str, ...]


def plan_units(batches: Sequence[Mapping[str, Any]], conditions: Mapping[str, Condition]) -> list[Unit]:
    """All units of a run, batch by batch.

    Args:
        batches: of the manifest, each with its ``items``.
    """
    sharing = {
        audio: tuple(name for name in conditions if conditions[name].audio == audio) for audio in _AUDIO
    }
    return [
        Unit(index * len(_AUDIO) + n, index, tuple(batch["items"]), audio, sharing[audio])
        for index, batch in enumerate(batches)
        for n, audio in enumerate(_AUDIO)
        if sharing[audio]
    ]


@dataclass(frozen=True)
class Work:
    """What a unit needs to be computed anywhere: here, or in a worker on another machine.

    Attributes:
        items: id -> item.
        conditions: name -> condition.
        partners: item id -> the item whose audio it hears where a condition's audio is ``"other"``.
        prompt_format: one of PROMPT_FORMATS.
    """

    items: Mapping[str, Item]
    conditions: Mapping[str, Condition]
    partners: Mapping[str, Item]
    prompt_format: str

    def answer(self, lalm: LALM, unit: Unit) -> dict[str, pa.Table]:
        """Condition -> its table of records.

        Where the memory does not suffice, the batch is halved, and halved again, each part padded to the
        width of the whole, so that its numbers differ in rounding only; ``rows_together`` records it.

        Raises:
            RunError: one item alone does not fit in memory.
            ItemError: a sound cannot be read any more.
        """
        items = [self.items[item] for item in unit.items]
        whole = self._ask(lalm, unit, items, None)
        width = whole[0].width
        tables = self._tables(lalm, unit, items, width, whole)
        return {name: pa.concat_tables(parts) for name, parts in tables.items()}

    def _tables(
        self, lalm: LALM, unit: Unit, items: list[Item], width: int, whole: Asked | None = None
    ) -> dict[str, list[pa.Table]]:
        try:
            prompt, asked = whole or self._ask(lalm, unit, items, width)
            return self._at_once(lalm, unit, items, prompt, asked)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(items) == 1:
                raise RunError(
                    f"item {items[0].id!r}, {width} tokens wide, does not fit in memory by itself. Use a "
                    "smaller dtype, a larger device, or device_map='auto'."
                ) from error
        # outside the except block, whose error holds on to the tensors of the failed attempt
        _free()
        half = (len(items) + 1) // 2
        first, second = (self._tables(lalm, unit, part, width) for part in (items[:half], items[half:]))
        return {name: first[name] + second[name] for name in unit.conditions}

    def _ask(self, lalm: LALM, unit: Unit, items: list[Item], width: int | None) -> Asked:
        return ask(lalm, items, unit.audio, self.partners, self.prompt_format, width)

    def _at_once(
        self, lalm: LALM, unit: Unit, items: list[Item], prompt: Prompt, asked: list[dict[str, Any]]
    ) -> dict[str, list[pa.Table]]:
        by_words = {name: self.conditions[name].decoding for name in unit.conditions}
        compared = [name for name in unit.conditions if by_words[name] is None]
        tables: dict[str, list[pa.Table]] = {}

        def record(name: str, make: Callable[..., pa.Table], result: Any) -> None:
            tables[name] = [make(name, unit.batch, items, asked, result)]

        if compared:
            edits = [self.conditions[name].intervention for name in compared]
            each = lalm.score_each(prompt, [item.choices for item in items], edits)
            for name, scores in zip(compared, each, strict=True):
                record(name, answer_records, scores)
        for name, decoding in by_words.items():
            if decoding is not None:
                answers = lalm.answer(prompt, self.conditions[name].intervention, decoding=decoding)
                record(name, word_records, answers)
        return tables

    def from_anywhere(self) -> Work:
        """The same with absolute paths: a worker has a working folder of its own."""
        items = {id: _absolute(item) for id, item in self.items.items()}
        partners = {id: _absolute(item) for id, item in self.partners.items()}
        return replace(self, items=items, partners=partners)

    def only(self, units: Iterable[Unit]) -> Work:
        """As much of it as these units need."""
        ids = {item for unit in units for item in unit.items}
        items = {id: self.items[id] for id in ids}
        partners = {id: self.partners[id] for id in ids if id in self.partners}
        return replace(self, items=items, partners=partners)


def _absolute(item: Item) -> Item:
    if not isinstance(item.audio, str | Path):
        return item
    if item.audio_root is None:
        return replace(item, audio=Path(item.audio).expanduser().absolute())
    return replace(item, audio_root=Path(item.audio_root).expanduser().absolute())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA's own class, or the words of a CPU's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
