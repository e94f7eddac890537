"""The inputs of a sweep: configurations that the model can take, and items one batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mata_interp.benchmarks import Item, Items
from mata_interp.benchmarks.entries import as_entries, as_items
from mata_interp.errors import ArgumentError, MataWarning
from mata_interp.interventions import InterventionLike, in_order
from mata_interp.lalm import Prompt
from mata_interp.lalm.batching import PromptBatches
from mata_interp.lalm.site_hooks import check_sites

from .paths import Parts

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["SweepInputs", "SweepWarning", "named_configurations"]


class SweepWarning(MataWarning):
    """A sweep took a slower path."""


def named_configurations(
    lalm: LALM, interventions: Sequence[InterventionLike] | Mapping[Any, InterventionLike]
) -> dict[Any, Parts]:
    """The configurations by name (by number, where they have none), with layers, heads and sites checked.

    Raises:
        ArgumentError: there is none.
        InterventionError: one of them names a layer, head or site that the model lacks.
    """
    by_name = interventions if isinstance(interventions, Mapping) else dict(enumerate(interventions))
    if not by_name:
        raise ArgumentError("There is nothing to sweep: pass at least one intervention (None counts as one).")
    configurations = {}
    for name, intervention in by_name.items():
        configurations[name] = in_order(intervention)
        check_sites(lalm.structure, configurations[name])
    return configurations


class SweepInputs(PromptBatches):
    """The items or prompts of a sweep; items that cannot be used are left out, counted and named.

    Args:
        items: one or several items, or prompts, but not both.
        options: whether items need options, two or more.
        strict: whether an item that cannot be used is an error.
        format: wording of items, one of PROMPT_FORMATS.

    Attributes:
        kind: ``Item`` or ``Prompt``.

    Raises:
        ArgumentError: there is nothing to sweep, or items and prompts are mixed.
    """

    def __init__(
        self,
        items: Item | Prompt | Sequence[Item | Prompt],
        options: bool = True,
        strict: bool = False,
        format: str = "options",
    ) -> None:
        entries: Any = as_entries(items, Prompt)
        kinds = {Prompt if isinstance(entry, Prompt) else Item for entry in entries}
        if not kinds:
            raise ArgumentError("There is nothing to sweep: pass at least one item or prompt.")
        if len(kinds) > 1:
            raise ArgumentError("Items and prompts cannot be swept together: sweep them one after the other.")
        self.kind = kinds.pop()
        ready = self.kind is Prompt or isinstance(entries, Items) or not options
        usable: Any = entries if ready else as_items(entries)  # type: ignore[arg-type]
        super().__init__(usable, strict, options, format)
