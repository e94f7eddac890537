"""One unit of work: a batch of items with one kind of audio, under all conditions that share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .. import execution
from ..benchmarks import Item
from ..execution.units import absolute
from ..interventions import in_order
from ..lalm.memory import in_halves
from ..sweeps.condition_scores import score_conditions
from ..sweeps.generation import answer_conditions
from .conditions import AudioKind, Condition, Edit
from .prompting import build_batch
from .records import answer_records, generation_records

if TYPE_CHECKING:
    from ..lalm import LALM, Decoding, GenerationOutput, Prompt

    Batch = tuple[Prompt, list[dict[str, Any]]]

__all__ = ["Unit", "Work", "plan_units"]

ENOUGH_TO_SHARE = 3
"""Edited conditions from which on generated answers share a prefill. Two passes over the prompt then serve
all, and one answer more is generated: the unedited one, which shows that the prefill is right."""

_AUDIO: tuple[AudioKind, ...] = ("own", "other", "silence", "none", "reversed")


@dataclass(frozen=True)
class Unit(execution.Unit):
    """A batch with one kind of audio: computed at once, and written condition by condition.

    Attributes:
        audio: Kind of audio in the prompts.
        conditions: Names of the conditions to compute, which share one prefill.
    """

    audio: AudioKind
    conditions: tuple[str, ...]


def plan_units(batches: Sequence[Mapping[str, Any]], conditions: Mapping[str, Condition]) -> list[Unit]:
    """All units of a run, batch by batch.

    Args:
        batches: The manifest's batches, each with its ``items``.
        conditions: Name -> condition.
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
    """Everything that computing a unit needs, in this process or in a worker on another machine.

    Attributes:
        items: Item id -> item.
        conditions: Name -> condition.
        partners: Item id -> the item whose audio replaces its own where a condition's audio is ``"other"``.
        prompt_format: One of PROMPT_FORMATS.
    """

    items: Mapping[str, Item]
    conditions: Mapping[str, Condition]
    partners: Mapping[str, Item]
    prompt_format: str

    def compute(self, lalm: LALM, unit: Unit) -> dict[str, pa.Table]:
        """Compute a unit: name of each condition -> its table of records.

        Where memory runs out, the batch is halved repeatedly. Each half is padded to the width of the whole,
        so that its numbers differ in rounding only; ``rows_together`` records it.

        Raises:
            RunError: One item alone does not fit in memory.
            ItemError: An audio file that was validated cannot be read any more.
        """
        items = [self.items[item] for item in unit.items]
        whole = self._build(lalm, unit, items, None)
        width = whole[0].width

        def compute(some: list[Item]) -> dict[str, pa.Table]:
            prompt, inputs = whole if len(some) == len(items) else self._build(lalm, unit, some, width)
            return self._answer(lalm, unit, some, prompt, inputs)

        parts = in_halves(compute, items, lambda item: f"item {item.id!r}, {width} tokens long,")
        return {name: pa.concat_tables([part[name] for part in parts]) for name in unit.conditions}

    def _build(self, lalm: LALM, unit: Unit, items: list[Item], width: int | None) -> Batch:
        return build_batch(lalm, items, unit.audio, self.partners, self.prompt_format, width)

    def _answer(
        self, lalm: LALM, unit: Unit, items: list[Item], prompt: Prompt, inputs: list[dict[str, Any]]
    ) -> dict[str, pa.Table]:
        decodings = {name: self.conditions[name].decoding for name in unit.conditions}
        tables: dict[str, pa.Table] = {}

        def record(name: str, make: Callable[..., pa.Table], result: Any) -> None:
            tables[name] = make(name, unit.batch, items, inputs, result)

        if None in decodings.values():
            compared = self._compared(unit.audio)
            edits = [self.conditions[name].intervention for name in compared]
            each = score_conditions(lalm, prompt, [item.choices for item in items], edits)
            for name, scores in zip(compared, each, strict=True):
                if name in unit.conditions:
                    record(name, answer_records, scores)
        for decoding in dict.fromkeys(decoding for decoding in decodings.values() if decoding is not None):
            names = [name for name in unit.conditions if decodings[name] == decoding]
            edits = [self.conditions[name].intervention for name in names]
            shares = self._generated(unit.audio, decoding) >= ENOUGH_TO_SHARE
            for name, answers in zip(names, _answers(lalm, prompt, decoding, edits, shares), strict=True):
                record(name, generation_records, answers)
        return tables

    def _generated(self, audio: AudioKind, decoding: Decoding) -> int:
        """How many edited conditions with this audio are answered in this way, computed already or not."""
        return sum(
            bool(condition.interventions)
            for condition in self.conditions.values()
            if condition.audio == audio and condition.decoding == decoding
        )

    def _compared(self, audio: AudioKind) -> list[str]:
        """The conditions with this audio whose options are compared.

        Rows that run together are rounded together: where a part of them is missing after an interruption,
        all of them run again, so that the numbers are those of an uninterrupted run to the bit.
        """
        return [
            name
            for name, condition in self.conditions.items()
            if condition.audio == audio and condition.decoding is None
        ]

    def with_absolute_paths(self) -> Work:
        """A copy with absolute paths, because a worker has another working directory."""
        items = {id: absolute(item) for id, item in self.items.items()}
        partners = {id: absolute(item) for id, item in self.partners.items()}
        return replace(self, items=items, partners=partners)

    def only(self, units: Iterable[Unit]) -> Work:
        """A copy with only the items that these units need."""
        ids = {item for unit in units for item in unit.items}
        items = {id: self.items[id] for id in ids}
        partners = {id: self.partners[id] for id in ids if id in self.partners}
        return replace(self, items=items, partners=partners)


def _answers(
    lalm: LALM, prompt: Prompt, decoding: Decoding, edits: Sequence[Edit], shares: bool
) -> list[GenerationOutput]:
    """The answers under each intervention, from one prefill if ``shares``."""
    if not shares:
        return [lalm.answer(prompt, edit, decoding=decoding) for edit in edits]
    prepared = lalm.prepare(prompt, generating=True)
    answers, _ = answer_conditions(lalm, prepared, decoding, [in_order(edit) for edit in edits])
    return answers
