"""Which item's audio replaces an item's own in conditions with another item's audio."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..benchmarks import Item
from ..errors import RunError

__all__ = ["audio_partners"]


def audio_partners(items: Sequence[Item], seed: int) -> dict[str, Item]:
    """Item id -> the item whose audio replaces its own: a random derangement of the clusters.

    Clusters (recordings) are put on one random cycle (Sattolo's algorithm) and each gets the next's audio,
    so that none keeps its own and each is used once. All items of a cluster get the audio of the same item of
    the other cluster, so that an item's variants (captions, questions) stay comparable, and conditions too.

    Args:
        items: Items of at least two clusters.
        seed: Seed of the cycle.

    Raises:
        RunError: There are fewer than two clusters.
    """
    members: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: str(item.id)):
        members.setdefault(item.cluster, []).append(item)
    clusters = sorted(members)
    if len(clusters) < 2:
        raise RunError(
            f"audio='other' needs items of at least two recordings, there are {len(clusters)}. "
            "Leave such conditions out, or use more items."
        )
    rng = np.random.default_rng(seed)
    cycle = list(clusters)
    for last in range(len(cycle) - 1, 0, -1):
        other = int(rng.integers(last))
        cycle[last], cycle[other] = cycle[other], cycle[last]
    partners: dict[str, Item] = {}
    for cluster, partner in zip(clusters, cycle, strict=True):
        source = members[partner][int(rng.integers(len(members[partner])))]
        partners.update({str(item.id): source for item in members[cluster]})
    return partners
