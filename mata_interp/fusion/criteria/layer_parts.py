"""What each layer adds to an effect, when layers are changed one after the other, and what one layer does.

With F(S) the margin lost when the layers S are changed (audio hidden, or another clip's), the part of a layer
is what it adds to F when layers are changed in order. Parts add up to F(all layers); a layer that never
matters has 0. Two layers of which either suffices share a part over both orders, from the first layer on and
from the last: Shapley values over two antithetic orders (Mitchell et al. 2022, JMLR 23:43).

Models of at most `THOROUGH` layers are measured in both orders, after every layer. Deeper ones are measured
in one order, which differs from item to item, so that the mean over items is that over both orders; and first
after every sixth of the layers. A block that adds less than 2 % of the item's effect (or 0.01 nats) is left
at that, its layers with equal parts; the others are measured layer by layer. This costs about a quarter.

What one layer does is measured twice. Its *cost*, F({l}), is what is lost where it alone is changed: large
if the model needs the layer. Its *gain*, F(all layers) - F(all layers but l), is what it gives back where all
others are changed: large if the layer suffices. Layers of which either suffices have a gain and no cost;
layers that need each other have a cost and no gain (Heimersheim & Nanda 2024, arXiv 2404.15255, on both
directions of activation patching). Deep models are measured by blocks first here too: a block whose cost and
gain are both below the bound is left at that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

__all__ = ["THOROUGH", "Margins", "costs_and_gains", "layer_parts", "starts_at_last"]

THOROUGH = 12  # layers
BLOCKS = 6
SMALL, LEAST = 0.02, 0.01  # of the item's effect; nats

Margins = Callable[[Sequence[Sequence[int]]], np.ndarray]
"""The margins with each set of layers changed, [sets]."""


def starts_at_last(item: str) -> bool:
    """Whether an item of a deep model is measured from the last layer on: one of two, by its id."""
    return bool(hashlib.sha256(item.encode()).digest()[0] % 2)


def layer_parts(margins: Margins, n: int, from_last: bool) -> np.ndarray:
    """What each of n layers adds to the loss of the margin: float64 [n].

    Args:
        margins: measures the margin with each of several sets of layers changed.
        n: number of layers.
        from_last: the order in which layers are changed, where one is enough.

    Examples:
        >>> effect = np.array([0.0, 0.5, 1.0])
        >>> layer_parts(lambda sets: np.array([2 - effect[list(some)].sum() for some in sets]), 3, False)
        array([0. , 0.5, 1. ])
    """
    if n <= THOROUGH:
        lost = margins([*_sets(range(n + 1), n, False), *_sets(range(n + 1), n, True)])
        return (np.diff(-lost[: n + 1]) + np.diff(-lost[n + 1 :])[::-1]) / 2
    cuts = _cuts(n)
    curve = dict(zip(cuts, -margins(_sets(cuts, n, from_last)), strict=True))
    least = max(LEAST, SMALL * abs(curve[n] - curve[0]))
    more = [
        cut
        for first, last in pairwise(cuts)
        if abs(curve[last] - curve[first]) >= least
        for cut in range(first + 1, last)
    ]
    if more:
        curve |= dict(zip(more, -margins(_sets(more, n, from_last)), strict=True))
    known = sorted(curve)
    parts = np.diff(np.interp(range(n + 1), known, [curve[cut] for cut in known]))
    return parts[::-1] if from_last else parts


def costs_and_gains(margins: Margins, n: int) -> tuple[np.ndarray, np.ndarray]:
    """What is lost where one layer is changed, and what it gives back where all others are: float64 [n] each.

    Args:
        margins: measures the margin with each of several sets of layers changed.
        n: number of layers.

    Examples:
        >>> effect = np.array([0.0, 0.5, 1.0])
        >>> costs, gains = costs_and_gains(lambda sets: np.array([2 - effect[[*s]].sum() for s in sets]), 3)
        >>> costs.tolist(), gains.tolist()
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0])
    """
    if n <= THOROUGH:
        _, costs, gains = _with_and_without(margins, [(layer,) for layer in range(n)], n)
        return costs, gains
    blocks = [tuple(range(first, last)) for first, last in pairwise(_cuts(n))]
    effect, *both = _with_and_without(margins, blocks, n)
    sizes = np.array([len(block) for block in blocks])
    costs, gains = (np.repeat(of_blocks / sizes, sizes) for of_blocks in both)
    least = max(LEAST, SMALL * abs(effect))
    large = np.asarray((np.abs(both) >= least).any(0))
    layers = [layer for block, more in zip(blocks, large, strict=True) if more for layer in block]
    if layers:
        _, costs[layers], gains[layers] = _with_and_without(margins, [(layer,) for layer in layers], n)
    return costs, gains


def _with_and_without(
    margins: Margins, groups: Sequence[tuple[int, ...]], n: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """The whole effect, the cost of each group of layers, and its gain."""
    every = tuple(range(n))
    others = [tuple(layer for layer in every if layer not in group) for group in groups]
    intact, changed, *each = margins([(), every, *groups, *others])
    without, alone = np.array(each).reshape(2, len(groups))
    return intact - changed, intact - without, alone - changed


def _cuts(n: int) -> list[int]:
    """Where blocks of a sixth of n layers begin, and n."""
    return [*range(0, n, -(-n // BLOCKS)), n]


def _sets(cuts: Sequence[int], n: int, from_last: bool) -> list[tuple[int, ...]]:
    """The first or last layers, as many as each cut says."""
    return [tuple(range(n - cut, n) if from_last else range(cut)) for cut in cuts]
