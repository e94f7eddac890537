"""What `trace` and `sweep` do with items and ready-made prompts alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mata_interp.benchmarks import Item

from .prompting.prompts import Prompt

__all__ = ["in_batches", "item_labels"]


def in_batches(given: Sequence[Item | Prompt], size: int) -> Iterator[Prompt | list[Item]]:
    """Prompts as they are, runs of items cut into batches; in order."""
    batch: list[Item] = []
    for entry in given:
        if isinstance(entry, Prompt):
            if batch:
                yield batch
            batch = []
            yield entry
            continue
        batch.append(entry)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def item_labels(items: Sequence[Item]) -> dict[str, tuple[str, list[str]]]:
    """Coordinates along ``item``: domain, kind, condition and cluster of each."""
    names = ("domain", "kind", "condition", "cluster")
    return {name: ("item", [str(getattr(item, name)) for item in items]) for name in names}
