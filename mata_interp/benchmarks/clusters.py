"""Clusters of items that share audio: connected components of items and their clips."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import ItemError

if TYPE_CHECKING:
    from .items import Item

__all__ = ["SharedClips", "connected_components"]


def connected_components(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """For each entry, the index of the first entry that is connected to it by keys in common.

    Examples:
        >>> connected_components([["a"], ["b", "c"], ["c", "d"], ["d"], ["a"]])
        [0, 1, 1, 1, 0]
    """
    first_with: dict[Hashable, int] = {}
    parents = list(range(len(keys)))

    def root(entry: int) -> int:
        while parents[entry] != entry:
            parents[entry] = parents[parents[entry]]
            entry = parents[entry]
        return entry

    for entry, keys_of_entry in enumerate(keys):
        for key in keys_of_entry:
            a, b = root(entry), root(first_with.setdefault(key, entry))
            parents[max(a, b)] = min(a, b)
    return [root(entry) for entry in range(len(keys))]


class SharedClips:
    """The clusters of a collection in which some items have several clips.

    Two items are in one cluster if they share a clip (by its decoded audio) or a source, or if a chain of
    such items connects them. The audio of the whole collection is decoded once, when a cluster is first asked
    for. Items whose audio cannot be decoded are in no cluster.

    Args:
        items: of the collection, with unique ids.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = tuple(items)

    def __getitem__(self, id: str) -> str | None:
        """The label of an item's cluster, the smallest of its sources and hashes; None if it has none."""
        return self._labels.get(id)

    @cached_property
    def _labels(self) -> dict[str, str]:
        keys: dict[str, set[str]] = {}
        for item in self._items:
            try:
                clips = {clip.sha256 for clip in item.load_clips()} if item.clips else set()
            except ItemError:
                continue
            if identifiers := clips | ({item.source} if item.source else set()):
                keys[item.id] = identifiers
        components = connected_components(list(keys.values()))
        labels: dict[int, str] = {}
        for component, identifiers in zip(components, keys.values(), strict=True):
            labels[component] = min(labels.get(component, min(identifiers)), *identifiers)
        return {id: labels[component] for id, component in zip(keys, components, strict=True)}
