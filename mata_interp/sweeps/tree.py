"""Which configurations are still the same at which layer: a tree with one branching a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mata_interp.interventions import AttentionEdit

__all__ = ["Level", "grow"]

Edits = tuple[AttentionEdit, ...]


@dataclass(frozen=True)
class Level:
    """The nodes of one layer: each a set of configurations that are alike up to here.

    Attributes:
        parents: of each node, its node one layer up (index); before the first layer there is the root, 0.
        edits: of each node, what is done to its scores in this layer, in order; () for nothing.
    """

    parents: tuple[int, ...]
    edits: tuple[Edits, ...]

    @property
    def branches(self) -> bool:
        """Whether the nodes differ from those one layer up."""
        return self.parents != tuple(range(len(self.parents)))


def grow(configurations: Sequence[Edits], layers: Sequence[int]) -> tuple[dict[int, Level], tuple[int, ...]]:
    """The tree of configurations, each a tuple of interventions done in order.

    Two configurations share a node for as long as they have done the same: so a layer costs one row for each
    way of coming to it, not one for each configuration.

    Returns:
        the level of each layer, and of each configuration its node at the end.
    """
    places = [0] * len(configurations)
    levels = {}
    for layer in layers:
        nodes: dict[tuple[int, tuple], int] = {}
        parents: list[int] = []
        edits: list[Edits] = []
        for i, parts in enumerate(configurations):
            here = tuple(part for part in parts if layer in part.layers)
            what = tuple((p.rule, p.alpha, p.heads_of(layer), p.phase, p.keys, p.queries) for p in here)
            place = (places[i], what)
            if place not in nodes:
                nodes[place] = len(parents)
                parents.append(places[i])
                edits.append(here)
            places[i] = nodes[place]
        levels[layer] = Level(tuple(parents), tuple(edits))
    return levels, tuple(places)
