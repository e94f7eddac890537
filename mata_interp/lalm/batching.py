"""Items and prompts in batches, as `trace` and `sweep` take them; unusable items are left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor
from tqdm.auto import tqdm

from mata_interp.benchmarks import Exclusion, Item
from mata_interp.benchmarks.entries import as_entries
from mata_interp.errors import ArgumentError, ExclusionWarning, ItemError, ModelError, RunError

from .memory import in_halves
from .prompting.prompts import Prompt

if TYPE_CHECKING:
    from .model import LALM

__all__ = ["PromptBatches", "in_batches", "in_parts", "item_labels", "rows_of"]

Result = TypeVar("Result")


class PromptBatches:
    """Prompts made of items batch by batch; items that cannot be used are left out, counted and named.

    Args:
        items: items, prompts or both, at least one; a prompt is a batch already.
        strict: raise the error of the first unusable item instead of leaving it out; items that their own
            loading left out are among them.
        options: whether items need options.

    Attributes:
        excluded: the items left out so far, those that their own loading left out among them.
        used: number of items and rows of prompts so far.

    Raises:
        ArgumentError: there is no item.
        ItemError: with ``strict``, the loading of the items left one out.
    """

    def __init__(
        self, items: Item | Prompt | Sequence[Item | Prompt], strict: bool = False, options: bool = False
    ) -> None:
        self._items: Any = as_entries(items, Prompt)
        if not len(self._items):
            raise ArgumentError("There is no item: give at least one item or prompt.")
        self._strict, self._options = strict, options
        self.excluded: list[Exclusion] = []
        self.used = 0
        for exclusion in self._items.excluded:
            self._exclude(exclusion)

    def results(
        self, lalm: LALM, compute: Callable[[Prompt], Result], batch_size: int, progress: bool, label: str
    ) -> Iterator[tuple[Prompt, Result]]:
        """Prompts on the model's device, in order, each with what ``compute`` returns for it.

        Where memory runs out, a batch is halved repeatedly, as by `in_parts`.

        Args:
            lalm: the model.
            compute: a function of a prompt.
            batch_size: items in a prompt.
            progress: show a bar with this ``label``.
            label: of the bar.

        Warns:
            ExclusionWarning: items were left out.

        Raises:
            ItemError: with ``strict``, an item cannot be used.
            RunError: no item can be used, or one alone does not fit in memory.
        """
        with tqdm(total=len(self._items), desc=label, unit="item", disable=not progress) as bar:
            for batch in in_batches(self._items, batch_size):
                ready = isinstance(batch, Prompt)
                prompt = batch if isinstance(batch, Prompt) else self._make_prompt(lalm, batch)
                if prompt is not None:
                    self.used += prompt.size
                    yield from in_parts(lalm, prompt, compute, None if ready else "options")
                bar.update(1 if ready else len(batch))
        if not self.excluded:
            return
        counts = f"{len(self.excluded)} left out, the first: {ItemError(*astuple(self.excluded[0]))}"
        if not self.used:
            raise RunError(f"No item can be used: {counts}")
        warnings.warn(ExclusionWarning(f"{self.used} items used, {counts}"), stacklevel=3)

    def excluded_lines(self) -> str:
        """What was left out, one line for each item: id, field, reason."""
        return "\n".join(f"{e.item}: {e.field}: {e.reason}" for e in self.excluded)

    def _make_prompt(self, lalm: LALM, batch: Sequence[Item]) -> Prompt | None:
        """The prompt of those items of a batch that can be used."""
        usable = list(batch)
        while usable:
            try:
                if self._options:
                    for item in usable:
                        lalm.option_tokens(item, item.choices)
                return lalm.prompt(usable)
            except ItemError as error:
                others = [item for item in usable if item.id != error.item]
                if self._strict or len(others) == len(usable):
                    raise
                self._exclude(Exclusion.from_error(error))
                usable = others
        return None

    def _exclude(self, exclusion: Exclusion) -> None:
        if self._strict:
            raise ItemError(*astuple(exclusion))
        self.excluded.append(exclusion)


def in_parts(
    lalm: LALM, prompt: Prompt, compute: Callable[[Prompt], Result], format: str | None = None
) -> list[tuple[Prompt, Result]]:
    """What ``compute`` returns for a prompt; where memory runs out, for its halves, their halves, and so on.

    A half is padded to the width of the whole, so that its numbers differ in rounding only.

    Args:
        lalm: the model.
        prompt: of one or several rows.
        compute: a function of a prompt on the model's device, in its dtype.
        format: in which ``lalm.prompt`` made the prompt of its items, so that halves are made in that way.
            None: it is a ready-made prompt, whose rows are cut out of its inputs.

    Returns:
        Each part with its result, in the order of the rows.

    Raises:
        RunError: one row alone does not fit in memory.
        ModelError: the rows of a ready-made prompt cannot be separated.
    """

    def compute_rows(rows: range) -> tuple[Prompt, Result]:
        part = prompt
        if len(rows) < prompt.size and format is not None:
            part = lalm.prompt([prompt.items[row] for row in rows], format=format, width=prompt.width)
        elif len(rows) < prompt.size:
            part = rows_of(prompt, rows)
        part = lalm.prepare(part)
        return part, compute(part)

    return in_halves(
        compute_rows,
        range(prompt.size),
        lambda row: f"item {prompt.items[row].id!r}, {prompt.width} tokens long,",
    )


def rows_of(prompt: Prompt, rows: range) -> Prompt:
    """Some rows of a prompt, padded as they are.

    Args:
        prompt: each of its inputs that is a tensor has one entry for each row.
        rows: consecutive row numbers.

    Raises:
        ModelError: an input has another number of entries than the prompt has rows.
    """
    chosen = slice(rows.start, rows.stop)
    inputs: dict[str, Any] = {}
    for name, x in prompt.inputs.items():
        if isinstance(x, Tensor) and len(x) != prompt.size:
            raise ModelError(
                f"Input {name!r} of a prompt of {prompt.size} rows has {len(x)} entries, so its rows "
                "cannot be separated: give prompts of one row."
            )
        inputs[name] = x[chosen] if isinstance(x, Tensor) else x
    groups = {name: group[chosen] for name, group in prompt.groups.items()}
    by_row = {
        field.name: value[chosen]
        for field in fields(prompt)
        if isinstance(value := getattr(prompt, field.name), tuple) and len(value) == prompt.size
    }
    return replace(prompt, inputs=inputs, groups=groups, **by_row)


def in_batches(items: Sequence[Item | Prompt], batch_size: int) -> Iterator[Prompt | list[Item]]:
    """Prompts as they are and runs of items cut into batches, in order."""
    batch: list[Item] = []
    for entry in items:
        if isinstance(entry, Prompt):
            if batch:
                yield batch
            batch = []
            yield entry
            continue
        batch.append(entry)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def item_labels(items: Sequence[Item]) -> dict[str, tuple[str, list[str]]]:
    """Coordinates along ``item``: domain, kind, condition and cluster of each."""
    names = ("domain", "kind", "condition", "cluster")
    return {name: ("item", [str(getattr(item, name)) for item in items]) for name in names}
