"""A tree of configurations: those that are the same up to a layer share a node there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mata_interp.interventions import AttentionEdit

__all__ = ["Level", "grow"]

Edits = tuple[AttentionEdit, ...]


@dataclass(frozen=True)
class Level:
    """The nodes of one layer: each a set of configurations that are the same up to here.

    Attributes:
        parents: index of each node's parent one layer up; before the first layer there is the root, 0.
        edits: the edits of each node's scores in this layer, in order; () for none.
    """

    parents: tuple[int, ...]
    edits: tuple[Edits, ...]

    @property
    def branches(self) -> bool:
        """Whether the nodes differ from those one layer up."""
        return self.parents != tuple(range(len(self.parents)))


def grow(configurations: Sequence[Edits], layers: Sequence[int]) -> tuple[dict[int, Level], tuple[int, ...]]:
    """The tree of configurations, each a tuple of edits performed in order.

    Two configurations share a node for as long as they are the same: a layer costs one row for each different
    history, not one for each configuration.

    Returns:
        The level of each layer, and the node of each configuration after the last layer.
    """
    places = [0] * len(configurations)
    levels = {}
    for layer in layers:
        nodes: dict[tuple[int, tuple], int] = {}
        parents: list[int] = []
        edits: list[Edits] = []
        for i, parts in enumerate(configurations):
            here = tuple(part for part in parts if layer in part.layers)
            settings = tuple((p.rule, p.alpha, p.heads_of(layer), p.phase, p.keys, p.queries) for p in here)
            place = (places[i], settings)
            if place not in nodes:
                nodes[place] = len(parents)
                parents.append(places[i])
                edits.append(here)
            places[i] = nodes[place]
        levels[layer] = Level(tuple(parents), tuple(edits))
    return levels, tuple(places)
