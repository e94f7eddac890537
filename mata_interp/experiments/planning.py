"""Batches of a run: decided once, before the first answer, and kept in the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..benchmarks import Item
from ..errors import ArgumentError
from ..execution import RayWorkers

if TYPE_CHECKING:
    from ..execution.ray_backend import Cluster

__all__ = ["StageSettings", "plan_batches"]


@dataclass(frozen=True)
class StageSettings:
    """How the stages of a study are computed.

    Attributes:
        batch_size: Number of items per batch.
        progress: Report progress.
        seed: Seed of all random draws.
        prompt_format: One of PROMPT_FORMATS.
        ray: The Ray cluster, as in `run`.
    """

    batch_size: int = 16
    progress: bool = True
    seed: int = 0
    prompt_format: str = "options"
    ray: RayWorkers | Cluster | str | bool | None = False


def plan_batches(
    items: Sequence[Item], lengths: Mapping[str, int], batch_size: int
) -> list[tuple[Item, ...]]:
    """Group items of similar length, the longest first, so that there is little padding.

    The longest batch comes first to show at once whether the memory suffices. Ties are ordered by id, so that
    the batches do not depend on the order of the items.

    Args:
        items: The items.
        lengths: Item id -> number of tokens of its prompt.
        batch_size: Number of items per batch.

    Raises:
        ArgumentError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ArgumentError(f"batch_size is {batch_size}; it must be at least 1.")
    ordered = sorted(items, key=lambda item: (-lengths[item.id], item.id))
    return [tuple(ordered[start : start + batch_size]) for start in range(0, len(ordered), batch_size)]
