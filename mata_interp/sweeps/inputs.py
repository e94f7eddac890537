"""What a sweep is given: configurations that the model can take, and items one batch at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mata_interp.benchmarks import Exclusion, Item, Items
from mata_interp.errors import ItemError, RunError
from mata_interp.interventions import Intervention, in_order
from mata_interp.lalm import Prompt
from mata_interp.lalm.batching import in_batches

from .shared_prefill import Edits

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["SweepInputs", "SweepWarning", "named_configurations"]


class SweepWarning(UserWarning):
    """Something about a sweep that does not stop it: items left out, or a slower way taken."""


def named_configurations(
    lalm: LALM, interventions: Sequence[Intervention] | Mapping[Any, Intervention]
) -> dict[Any, Edits]:
    """The configurations by name (by number, where they have none), their layers and heads checked."""
    named = interventions if isinstance(interventions, Mapping) else dict(enumerate(interventions))
    if not named:
        raise ValueError("Nothing to sweep: give at least one intervention (None is one).")
    configurations = {name: in_order(intervention) for name, intervention in named.items()}
    for part in (part for parts in configurations.values() for part in parts):
        part.bind(lalm.structure.heads)
    return configurations


class SweepInputs:
    """Items or prompts, to be gone through batch by batch; items that cannot be used are left out and named.

    Args:
        options: whether items need options, two or more.

    Attributes:
        kind: ``Item`` or ``Prompt``.
        excluded: what has been left out so far, what the items' own loading left out among it.
    """

    def __init__(self, items: Item | Prompt | Sequence[Item | Prompt], options: bool = True) -> None:
        given = [items] if isinstance(items, Item | Prompt) else items
        kinds = {Prompt if isinstance(one, Prompt) else Item for one in given}
        if not kinds:
            raise ValueError("Nothing to sweep: give at least one item or prompt.")
        if len(kinds) > 1:
            raise ValueError("Items and prompts together: sweep them one after the other.")
        self.kind = kinds.pop()
        ready = self.kind is Prompt or isinstance(given, Items) or not options
        self._all: Sequence[Item | Prompt] = given if ready else Items.from_records(given)  # type: ignore[arg-type]
        self._options = options
        self.excluded: list[Exclusion] = list(getattr(self._all, "excluded", ()))

    def batches(self, lalm: LALM, size: int, progress: bool, label: str) -> Iterator[Prompt]:
        """Prompts on the model's device.

        Warns:
            SweepWarning: items were left out.

        Raises:
            RunError: none is left.
        """
        used = 0
        with tqdm(total=len(self._all), desc=label, unit="item", disable=not progress) as bar:
            for batch in in_batches(self._all, size):
                prompt = batch if isinstance(batch, Prompt) else self._asked(lalm, batch)
                if prompt is not None:
                    used += prompt.size
                    yield lalm.place(prompt)
                bar.update(1 if isinstance(batch, Prompt) else len(batch))
        first = str(ItemError(*astuple(self.excluded[0]))) if self.excluded else ""
        if not used:
            raise RunError(f"No item can be used. {len(self.excluded)} left out, the first: {first}")
        if self.excluded:
            warnings.warn(
                SweepWarning(f"{used} items; {len(self.excluded)} left out, the first: {first}"), stacklevel=3
            )

    def told(self) -> str:
        """What was left out, a line each: item, field, reason."""
        return "\n".join(f"{e.item}: {e.field}: {e.reason}" for e in self.excluded)

    def _asked(self, lalm: LALM, batch: Sequence[Item]) -> Prompt | None:
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
                self.excluded.append(Exclusion.from_error(error))
                left = rest
        return None
