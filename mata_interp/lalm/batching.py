"""Items and prompts in batches, as `trace` and `sweep` take them; unusable items are left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from mata_interp.benchmarks import Exclusion, Item
from mata_interp.benchmarks.entries import as_entries
from mata_interp.errors import ArgumentError, ExclusionWarning, ItemError, ModelError, RunError
from mata_interp.progress import progress_bar

from .memory import in_halves
from .prompting.formats import canonical_format
from .prompting.prompts import Prompt

if TYPE_CHECKING:
    from .model import LALM

__all__ = [
    "PromptBatches",
    "exclusion_notes",
    "in_batches",
    "in_parts",
    "item_labels",
    "rows_of",
    "usable_prompt",
]

Result = TypeVar("Result")


class PromptBatches:
    """Prompts made of items batch by batch; items that cannot be used are left out, counted and named.

    Args:
        items: items, prompts or both, at least one; a prompt is a batch already.
        strict: raise the error of the first unusable item instead of leaving it out; items that their own
            loading left out are among them.
        options: whether items need options.
        format: wording of items, one of PROMPT_FORMATS.

    Attributes:
        excluded: the items left out so far, those that their own loading left out among them.
        used: number of items and rows of prompts so far.

    Raises:
        ArgumentError: there is no item, or no such format.
        ItemError: with ``strict``, the loading of the items left one out.
    """

    def __init__(
        self,
        items: Item | Prompt | Sequence[Item | Prompt],
        strict: bool = False,
        options: bool = False,
        format: str = "options",
    ) -> None:
        canonical_format(format)
        self._items: Any = as_entries(items, Prompt)
        if not len(self._items):
            raise ArgumentError("There is no item: give at least one item or prompt.")
        self._strict, self._options, self._format = strict, options, format
        self.excluded: list[Exclusion] = []
        self.used = 0
        for exclusion in self._items.excluded:
            self._exclude(exclusion)

    def results(
        self,
        lalm: LALM,
        compute: Callable[[Prompt], Result],
        batch_size: int,
        progress: bool,
        label: str,
        generating: bool = False,
    ) -> Iterator[tuple[Prompt, Result]]:
        """Prompts on the model's device, in order, each with what ``compute`` returns for it.

        Where memory runs out, a batch is halved repeatedly, as by `in_parts`.

        Args:
            lalm: the model.
            compute: a function of a prompt.
            batch_size: items in a prompt.
            progress: show a bar with this ``label``.
            label: of the bar.
            generating: that of `LALM.prepare`.

        Warns:
            ExclusionWarning: items were left out.

        Raises:
            ItemError: with ``strict``, an item cannot be used.
            RunError: no item can be used, or one alone does not fit in memory.
        """
        with progress_bar(label, len(self._items), show=progress) as bar:
            for batch in self.batches(batch_size):
                ready = isinstance(batch, Prompt)
                prompt, excluded = usable_prompt(lalm, batch, self._format, self._options, self._strict)
                for exclusion in excluded:
                    self._exclude(exclusion)
                if prompt is not None:
                    self.used += prompt.size
                    format = None if ready else self._format
                    yield from in_parts(lalm, prompt, compute, format, generating)
                bar.update(1 if ready else len(batch))
        self._report(stacklevel=4)

    def batches(self, batch_size: int) -> list[Prompt | list[Item]]:
        """The prompts as they are, and the items in lists of ``batch_size``."""
        return list(in_batches(self._items, batch_size))

    def collect(
        self, batches: Sequence[Prompt | list[Item]], excluded: Sequence[Sequence[Mapping[str, Any]]]
    ) -> list[list[Item]]:
        """The items of each batch that were used, where other processes made the prompts.

        Args:
            batches: those of `batches`.
            excluded: the items of each that were left out, as dicts.

        Warns:
            ExclusionWarning: items were left out.

        Raises:
            RunError: no item can be used.
        """
        used = []
        for batch, left_out in zip(batches, excluded, strict=True):
            for exclusion in left_out:
                self._exclude(Exclusion(**exclusion))
            names = {exclusion["item"] for exclusion in left_out}
            members = batch.items if isinstance(batch, Prompt) else batch
            used.append([item for item in members if item.id not in names])
            self.used += len(used[-1])
        self._report(stacklevel=4)
        return used

    def _report(self, stacklevel: int) -> None:
        """Warn of what was left out; RunError if nothing is left."""
        if not self.excluded:
            return
        counts = f"{len(self.excluded)} left out, the first: {ItemError(*astuple(self.excluded[0]))}"
        if not self.used:
            raise RunError(f"No item can be used: {counts}")
        warnings.warn(ExclusionWarning(f"{self.used} items used, {counts}"), stacklevel=stacklevel)

    def excluded_lines(self) -> str:
        """What was left out, one line for each item: id, field, reason."""
        return "\n".join(f"{e.item}: {e.field}: {e.reason}" for e in self.excluded)

    def _exclude(self, exclusion: Exclusion) -> None:
        if self._strict:
            raise ItemError(*astuple(exclusion))
        self.excluded.append(exclusion)


def usable_prompt(
    lalm: LALM,
    batch: Prompt | Sequence[Item],
    format: str = "options",
    options: bool = False,
    strict: bool = False,
) -> tuple[Prompt | None, list[Exclusion]]:
    """The prompt of those items of a batch that can be used, and the others with their reasons.

    Args:
        lalm: the model.
        batch: items, or a prompt, which comes back as it is.
        format: wording of the items, one of PROMPT_FORMATS.
        options: whether items need options.
        strict: raise the error of the first item that cannot be used.

    Returns:
        The prompt, None where no item is left; and the items left out.

    Raises:
        ItemError: with ``strict``, an item cannot be used.
    """
    if isinstance(batch, Prompt):
        return batch, []
    usable, excluded = list(batch), []
    while usable:
        try:
            if options:
                for item in usable:
                    lalm.option_tokens(item, item.choices)
            return lalm.prompt(usable, format=format), excluded
        except ItemError as error:
            remaining = [item for item in usable if item.id != error.item]
            if strict or len(remaining) == len(usable):
                raise
            excluded.append(Exclusion.from_error(error))
            usable = remaining
    return None, excluded


def exclusion_notes(excluded: Sequence[Exclusion]) -> list[dict[str, Any]]:
    """Exclusions as plain data, which `PromptBatches.collect` takes."""
    return [asdict(exclusion) for exclusion in excluded]


def in_parts(
    lalm: LALM,
    prompt: Prompt,
    compute: Callable[[Prompt], Result],
    format: str | None = None,
    generating: bool = False,
) -> list[tuple[Prompt, Result]]:
    """What ``compute`` returns for a prompt; where memory runs out, for its halves, their halves, and so on.

    A half is padded to the width of the whole, so that its numbers differ in rounding only.

    Args:
        lalm: the model.
        prompt: of one or several rows.
        compute: a function of a prompt on the model's device, in its dtype.
        format: in which ``lalm.prompt`` made the prompt of its items, so that halves are made in that way.
            None: it is a ready-made prompt, whose rows are cut out of its inputs.
        generating: that of `LALM.prepare`.

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
        part = lalm.prepare(part, generating=generating)
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
