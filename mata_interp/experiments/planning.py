"""Which items share a batch: decided once, before the first answer, and kept in the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..benchmarks import Item

__all__ = ["plan_batches"]


def plan_batches(
    items: Sequence[Item], lengths: Mapping[str, int], batch_size: int
) -> list[tuple[Item, ...]]:
    """Items of like length together, so that little is padding; the longest first.

    Starting with the longest shows at once whether the memory is enough and makes the progress bar's guess a
    cautious one. Ties fall in order of id, so that the plan depends on the items alone, not on their order.

    Args:
        lengths: item id -> tokens of its prompt.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    ordered = sorted(items, key=lambda item: (-lengths[item.id], item.id))
    return [tuple(ordered[start : start + batch_size]) for start in range(0, len(ordered), batch_size)]
