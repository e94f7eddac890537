"""The inputs of a sweep: configurations that the model can take, and items one batch at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from mata_interp.benchmarks import Exclusion, Item, Items
from mata_interp.errors import ArgumentError, ItemError, MataWarning, RunError
from mata_interp.interventions import InterventionLike, in_order, require_attention_edits
from mata_interp.lalm import Prompt
from mata_interp.lalm.batching import in_batches

from .shared_prefill import Edits

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["SweepInputs", "SweepWarning", "named_configurations"]


class SweepWarning(MataWarning):
    """A sweep left items out, or took a slower path."""


def named_configurations(
    lalm: LALM, interventions: Sequence[InterventionLike] | Mapping[Any, InterventionLike]
) -> dict[Any, Edits]:
    """The configurations by name (by number, where they have none), with their layers and heads checked.

    Raises:
        ArgumentError: there is none.
        InterventionError: one of them acts on another site than attention scores, or names a layer or head
            that the model lacks.
    """
    by_name = interventions if isinstance(interventions, Mapping) else dict(enumerate(interventions))
    if not by_name:
        raise ArgumentError("Nothing to sweep: pass at least one intervention (None is one).")
    configurations = {}
    for name, intervention in by_name.items():
        parts = require_attention_edits(in_order(intervention), "A sweep")
        for part in parts:
            part.bind(lalm.structure.heads)
        configurations[name] = parts
    return configurations


class SweepInputs:
    """Items or prompts, batch by batch; items that cannot be used are left out, counted and named.

    Args:
        items: one or several items, or prompts.
        options: whether items need options, two or more.
        strict: whether an item that cannot be used is an error.

    Attributes:
        kind: ``Item`` or ``Prompt``.
        excluded: the items left out so far, those that the items' own loading left out among them.
    """

    def __init__(
        self, items: Item | Prompt | Sequence[Item | Prompt], options: bool = True, strict: bool = False
    ) -> None:
        entries = [items] if isinstance(items, Item | Prompt) else items
        kinds = {Prompt if isinstance(entry, Prompt) else Item for entry in entries}
        if not kinds:
            raise ArgumentError("Nothing to sweep: pass at least one item or prompt.")
        if len(kinds) > 1:
            raise ArgumentError("Items and prompts together: sweep them one after the other.")
        self.kind = kinds.pop()
        ready = self.kind is Prompt or isinstance(entries, Items) or not options
        self._all: Sequence[Item | Prompt] = entries if ready else Items.of(entries)  # type: ignore[arg-type]
        self._options, self._strict = options, strict
        self.excluded: list[Exclusion] = []
        for exclusion in getattr(self._all, "excluded", ()):
            self._exclude(exclusion)

    def batches(self, lalm: LALM, size: int, progress: bool, label: str) -> Iterator[Prompt]:
        """Prompts as the model takes them.

        Warns:
            SweepWarning: items were left out.

        Raises:
            RunError: none is left.
            ItemError: an item cannot be used, and the inputs are strict.
        """
        used = 0
        with tqdm(total=len(self._all), desc=label, unit="item", disable=not progress) as bar:
            for batch in in_batches(self._all, size):
                prompt = batch if isinstance(batch, Prompt) else self._prompt(lalm, batch)
                if prompt is not None:
                    used += prompt.size
                    yield lalm.prepare(prompt)
                bar.update(1 if isinstance(batch, Prompt) else len(batch))
        first = str(ItemError(*astuple(self.excluded[0]))) if self.excluded else ""
        if not used:
            raise RunError(f"No item can be used. {len(self.excluded)} left out, the first: {first}")
        if self.excluded:
            warnings.warn(
                SweepWarning(f"{used} items; {len(self.excluded)} left out, the first: {first}"), stacklevel=3
            )

    def excluded_lines(self) -> str:
        """The items left out, one per line: item, field, reason."""
        return "\n".join(f"{e.item}: {e.field}: {e.reason}" for e in self.excluded)

    def _exclude(self, exclusion: Exclusion) -> None:
        if self._strict:
            raise ItemError(*astuple(exclusion))
        self.excluded.append(exclusion)

    def _prompt(self, lalm: LALM, batch: Sequence[Item]) -> Prompt | None:
        """The prompt of those items of a batch that can be used."""
        left = list(batch)
        while left:
            try:
                if self._options:
                    for item in left:
                        lalm.option_tokens(item, item.choices)
                return lalm.prompt(left)
            except ItemError as error:
                rest = [item for item in left if item.id != error.item]
                if len(rest) == len(left):
                    raise
                self._exclude(Exclusion.of(error))
                left = rest
        return None
