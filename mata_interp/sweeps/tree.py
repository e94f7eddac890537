"""A tree of configurations: those that are the same up to a layer share a node there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mata_interp.interventions import AttentionEdit

__all__ = ["Level", "grow", "likeness"]

Edits = tuple[AttentionEdit, ...]


@dataclass(frozen=True)
class Level:
    """The nodes of one layer: each a set of configurations that are the same up to here.

    Attributes:
        parents: index of each node's parent one layer up; before the first layer there is the root, 0.
        edits: the edits of each node's scores in this layer, in order; () for none.
        patches: the other edits of each node in this layer, of states or head outputs.
    """

    parents: tuple[int, ...]
    edits: tuple[Edits, ...]
    patches: tuple[tuple[Any, ...], ...] = ()

    @property
    def branches(self) -> bool:
        """Whether the nodes differ from those one layer up."""
        return self.parents != tuple(range(len(self.parents)))


def grow(
    configurations: Sequence[tuple[Any, ...]], layers: Sequence[int]
) -> tuple[dict[int, Level], tuple[int, ...]]:
    """The tree of configurations, each a tuple of attention edits and patches performed in order.

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
        here_of: list[tuple[Any, ...]] = []
        for i, parts in enumerate(configurations):
            here = tuple(part for part in parts if layer in part.layers)
            place = (places[i], tuple(_settings(part, layer) for part in here))
            if place not in nodes:
                nodes[place] = len(parents)
                parents.append(places[i])
                here_of.append(here)
            places[i] = nodes[place]
        edits, patches = (
            tuple(tuple(p for p in here if isinstance(p, AttentionEdit) == scores) for here in here_of)
            for scores in (True, False)
        )
        levels[layer] = Level(tuple(parents), edits, patches)
    return levels, tuple(places)


def _settings(part: Any, layer: int) -> Any:
    """All that decides what a part does in a layer."""
    if not isinstance(part, AttentionEdit):
        return part.at_layer(layer)
    return part.rule, part.alpha, part.heads_of(layer), part.phase, part.keys, part.queries


def likeness(parts: Sequence[Any]) -> tuple:
    """A key that sorts configurations so that those that share most nodes are together.

    Windows with the same first layer and strength are the same up to the end of the shorter one; those that
    differ in strength share nothing from the first layer on.
    """
    return tuple(
        (
            part.layers[0],
            part.rule,
            part.keys,
            str(part.heads),
            part.queries,
            part.phase,
            part.alpha,
            part.layers,
        )
        if isinstance(part, AttentionEdit)
        else (part.layers[0], type(part).__name__, repr(part))
        for part in parts
    )
