"""What each layer adds to an effect, when layers are changed one after the other, and what it does alone.

With F(S) the margin lost when the layers S are changed (audio hidden, or another clip's), the part of a layer
is what it adds to F when layers are changed in order. Parts add up to F(all layers); a layer that never
matters has 0. Two layers of which either suffices share a part over both orders, from the first layer on and
from the last: Shapley values over two antithetic orders (Mitchell et al. 2022, JMLR 23:43).

Models of at most `THOROUGH` layers are measured in both orders, after every layer. Deeper ones are measured
in one order, which differs from item to item, so that the mean over items is that over both orders; and first
after every sixth of the layers. A block that adds less than 2 % of the item's effect (or 0.01 nats) is left
at that, its layers with equal parts; the others are measured layer by layer. This costs about a quarter.

What a layer does alone, F({l}), is measured of every layer of a shallow model; of a deep one, only of layers
whose part in order is at least 2 % of the item's effect (and 0.01 nats), and the part stands for the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

__all__ = ["THOROUGH", "Margins", "layer_parts", "layers_alone", "starts_at_last"]

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
    step = -(-n // BLOCKS)
    cuts = [*range(0, n, step), n]
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


def layers_alone(margins: Margins, parts: np.ndarray) -> np.ndarray:
    """How much of the margin of a deep model is lost when a layer is changed alone: float64 [n].

    Args:
        margins: measures the margin with each of several sets of layers changed. The set without layers was
            measured by `layer_parts` before, so a function that remembers results saves that run.
        parts: what each of the n layers adds in order, from `layer_parts`.

    Examples:
        >>> effect = np.array([0.0, 0.5, 1.0])
        >>> layers_alone(lambda sets: np.array([2 - effect[list(some)].sum() for some in sets]), effect)
        array([0. , 0.5, 1. ])
    """
    chosen = np.flatnonzero(np.abs(parts) >= max(LEAST, SMALL * abs(parts.sum())))
    lost = parts.copy()
    if len(chosen):
        intact, *changed = margins([(), *((int(layer),) for layer in chosen)])
        lost[chosen] = intact - np.array(changed)
    return lost


def _sets(cuts: Sequence[int], n: int, from_last: bool) -> list[tuple[int, ...]]:
    """The first or last layers, as many as each cut says."""
    return [tuple(range(n - cut, n) if from_last else range(cut)) for cut in cuts]
