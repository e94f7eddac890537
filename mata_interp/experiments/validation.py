"""Every item is looked at once before a run: can it be asked, and how long is its prompt?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..benchmarks import Exclusion, Item, Items
from ..errors import ItemError, RunError
from .notices import warn

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["ValidatedItems", "validate_items"]


@dataclass(frozen=True)
class ValidatedItems:
    """Items that can be asked, and what was learnt on the way.

    Attributes:
        name: of the benchmark.
        file_sha256: of the benchmark's file; of the items' content where they were made in memory.
        items: in the given order, ids unique.
        lengths: item id -> tokens of its prompt, audio included.
        digests: item id -> two SHA-256, with a dash between, of all that a table or an answer depends on:
            texts and labels; decoded sound.
        truncated: ids of items whose audio is longer than the model takes.
        excluded: ``{"item", "field", "reason"}`` of each item left out.
    """

    name: str
    file_sha256: str
    items: tuple[Item, ...]
    lengths: dict[str, int]
    digests: dict[str, str]
    truncated: frozenset[str]
    excluded: tuple[dict[str, str], ...]

    @property
    def sha256(self) -> str:
        """Of all items' digests, whatever their order."""
        return hashlib.sha256(
            "".join(sorted(self.digests[item.id] for item in self.items)).encode()
        ).hexdigest()

    @property
    def clusters(self) -> frozenset[str]:
        return frozenset(item.cluster for item in self.items)

    def only(self, items: Sequence[Item]) -> ValidatedItems:
        """These items alone; what is not among the vetted ones is left out."""
        wanted = {item.id for item in items}
        return replace(self, items=tuple(item for item in self.items if item.id in wanted))


def validate_items(
    lalm: LALM,
    items: Item | Sequence[Item],
    *,
    progress: bool = True,
    scored: bool = False,
    format: str = "options",
) -> ValidatedItems:
    """Decode every sound and build every prompt once; leave out, count and name what cannot be used.

    Args:
        format: of the prompts, one of PROMPT_FORMATS.
        scored: leave out items without a known answer as well.

    Warns:
        RunWarning: items were left out.

    Raises:
        RunError: none is left.
    """
    if not isinstance(items, Items):
        items = Items.from_records([items] if isinstance(items, Item) else items)
    good: list[Item] = []
    lengths: dict[str, int] = {}
    digests: dict[str, str] = {}
    truncated: set[str] = set()
    excluded = list(items.excluded)
    for item in tqdm(items, desc="checking items", unit="item", disable=not progress, leave=False):
        try:
            if scored and item.answer is None:
                raise ItemError(item.id, "answer", "it is not known.")
            prompt = lalm.prompt(item, format=format)
            digests[item.id] = _digest(item, item.load_audio(lalm.sampling_rate).sha256)
        except ItemError as error:
            excluded.append(Exclusion.from_error(error))
            continue
        good.append(item)
        lengths[item.id] = prompt.width
        if prompt.truncated_seconds[0] > 0:
            truncated.add(item.id)
    first = str(ItemError(*astuple(excluded[0]))) if excluded else ""
    if not good:
        raise RunError(f"{items.name}: no item can be used. {len(excluded)} left out, the first: {first}")
    if excluded:
        warn(f"{items.name}: {len(good)} items; {len(excluded)} left out, the first: {first}")
    left_out = tuple(asdict(exclusion) for exclusion in excluded)
    return ValidatedItems(
        items.name, items.sha256, tuple(good), lengths, digests, frozenset(truncated), left_out
    )


def _digest(item: Item, sound: str) -> str:
    texts: list[Any] = [item.id, item.question, item.caption, list(item.choices), item.answer]
    labels = [item.cluster, item.domain, item.kind, item.condition]
    return f"{hashlib.sha256(json.dumps([*texts, *labels]).encode()).hexdigest()}-{sound}"
