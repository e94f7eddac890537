"""Check every item once before a run: can it be used, and how many tokens does its prompt have?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

from ..benchmarks import Exclusion, Item, Items
from ..benchmarks.entries import as_items
from ..errors import ItemError, RunError
from ..execution.batches import item_digest
from ..execution.notices import warn
from ..lalm.prompting.lengths import PromptLengths
from ..progress import track

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["ValidatedItems", "validate_items"]


@dataclass(frozen=True)
class ValidatedItems:
    """Items that can be used, and what their validation found.

    Attributes:
        name: Name of the benchmark.
        file_sha256: SHA-256 of the benchmark's file; of the items' content where they were made in memory.
        items: The items in their original order; ids are unique.
        lengths: Item id -> number of tokens of its prompt, audio included.
        digests: Item id -> two SHA-256 joined by a dash: of texts and labels, and of the decoded audio. They
            cover everything that a record depends on.
        truncated: Ids of items whose audio is longer than the model takes.
        excluded: The items that were left out.
    """

    name: str
    file_sha256: str
    items: tuple[Item, ...]
    lengths: dict[str, int]
    digests: dict[str, str]
    truncated: frozenset[str]
    excluded: tuple[Exclusion, ...]

    def __repr__(self) -> str:
        return f"<ValidatedItems {self.name}: {len(self.items)} items, {len(self.excluded)} left out>"

    @property
    def sha256(self) -> str:
        """SHA-256 of all items' digests, which does not depend on their order."""
        return hashlib.sha256(
            "".join(sorted(self.digests[item.id] for item in self.items)).encode()
        ).hexdigest()

    @property
    def clusters(self) -> frozenset[str]:
        """Labels of the clusters (recordings) of the items."""
        return frozenset(item.cluster for item in self.items)

    def as_items(self) -> Items:
        """The validated items, with what was left out."""
        return Items(self.items, self.name, self.file_sha256, self.excluded)

    def only(self, items: Sequence[Item]) -> ValidatedItems:
        """The validated items that are among ``items``."""
        ids = {item.id for item in items}
        return replace(self, items=tuple(item for item in self.items if item.id in ids))

    def joined(self, other: ValidatedItems) -> ValidatedItems:
        """These items and those of another part of the same benchmark."""
        return replace(
            self,
            items=(*self.items, *other.items),
            lengths={**self.lengths, **other.lengths},
            digests={**self.digests, **other.digests},
            truncated=self.truncated | other.truncated,
            excluded=tuple(dict.fromkeys([*self.excluded, *other.excluded])),
        )


def validate_items(
    lalm: LALM,
    items: Item | Sequence[Item],
    *,
    progress: bool = True,
    scored: bool = False,
    format: str = "options",
    strict: bool = False,
) -> ValidatedItems:
    """Decode the audio of every item and measure its prompt; leave out, count and name unusable items.

    Args:
        lalm: The model that the prompts are for.
        items: One or several items.
        progress: Show a progress bar.
        scored: Leave out items without a known answer as well.
        format: Prompt format, one of PROMPT_FORMATS.
        strict: Raise for an unusable item, instead of leaving it out.

    Warns:
        RunWarning: Items were left out.

    Raises:
        RunError: No item is left.
        ItemError: An item cannot be used, and ``strict`` is set.
    """
    items = as_items(items)
    if strict and items.excluded:
        raise ItemError(*astuple(items.excluded[0]))
    measure = PromptLengths(lalm, format)
    good: list[Item] = []
    lengths: dict[str, int] = {}
    digests: dict[str, str] = {}
    truncated: set[str] = set()
    excluded = list(items.excluded)
    for item in track(items, "checking items", show=progress):
        try:
            if scored and item.answer is None:
                raise ItemError(item.id, "answer", "it is not known.")
            length = measure(item)
        except ItemError as error:
            if strict:
                raise
            excluded.append(Exclusion.from_error(error))
            continue
        good.append(item)
        lengths[item.id] = length.tokens
        digests[item.id] = item_digest(item, length.audio_sha256)
        if length.truncated_seconds > 0:
            truncated.add(item.id)
    first = str(ItemError(*astuple(excluded[0]))) if excluded else ""
    if not good:
        raise RunError(
            f"{items.name}: no item can be used. {len(excluded)} were left out, the first: {first}"
        )
    if excluded:
        warn(f"{items.name}: {len(good)} items; {len(excluded)} left out, the first: {first}")
    return ValidatedItems(
        items.name, items.sha256, tuple(good), lengths, digests, frozenset(truncated), tuple(excluded)
    )
