"""Shapley values of layers: the cost of hiding the audio in a layer, whatever other layers it is hidden in.

Hiding one layer at a time says nothing of layers that replace each other. The Shapley value of a layer
(Shapley 1953, Contributions to the Theory of Games 2:307) is the mean of what hiding it costs over all orders
in which the layers can be hidden one after the other; the values of all layers sum to the cost of hiding them
all. Orders are drawn at random, each together with its reverse (antithetic sampling: Mitchell et al. 2022,
JMLR 23:43).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mata_interp.fusion.share_window import WORTH
from mata_interp.seeding import named_generator

__all__ = ["LayerShares", "layer_shares", "random_orders", "shapley_values"]

Layers = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LayerShares:
    """Shapley values relative to the cost of hiding the audio in all layers.

    Attributes:
        total: that cost, nats.
        share: [layers]; they sum to 1.
        error: standard error of each share over clips, [layers], for the orders that were drawn.
        sampling: standard error of each share over pairs of orders, [layers], for the clips that there are.
    """

    total: float
    share: np.ndarray
    error: np.ndarray
    sampling: np.ndarray

    @property
    def layers(self) -> Layers:
        """Those with at least a fifth of the largest share."""
        return tuple(np.flatnonzero(self.share >= WORTH * self.share.max()).tolist())


def random_orders(layers: int, pairs: int, seed: int = 0) -> list[Layers]:
    """Orders of all layers, each followed by its reverse."""
    rng, orders = named_generator(seed, "orders of layers"), []
    for _ in range(pairs):
        order = rng.permutation(layers).tolist()
        orders += [tuple(order), tuple(order[::-1])]
    return orders


def shapley_values(margins: Callable[[Sequence[Layers]], np.ndarray], orders: Sequence[Layers]) -> np.ndarray:
    """What hiding each layer costs in each order, [orders, layers, items].

    Args:
        margins: of all items for each of some sets of hidden layers, [sets, items].
        orders: of all layers.
    """
    prefixes = [[tuple(sorted(order[:count])) for count in range(len(order) + 1)] for order in orders]
    sets = list(dict.fromkeys(hidden for some in prefixes for hidden in some))
    place = {hidden: n for n, hidden in enumerate(sets)}
    measured = margins(sets)
    values = np.empty((len(orders), len(orders[0]), measured.shape[1]))
    for n, (order, some) in enumerate(zip(orders, prefixes, strict=True)):
        along = measured[[place[hidden] for hidden in some]]  # (layers + 1, items)
        values[n, list(order)] = along[:-1] - along[1:]
    return values


def layer_shares(values: np.ndarray) -> LayerShares:
    """Shares from `shapley_values` of orders of which every second is the reverse of the one before."""
    pairs = values.mean(2).reshape(-1, 2, values.shape[1]).mean(1)  # (pairs, layers)
    by_item = values.mean(0).T  # (items, layers)
    mean, whole = by_item.mean(0), by_item.sum(1)
    total = float(whole.mean())
    influence = (by_item - mean / total * whole[:, None]) / total  # of a ratio of means
    return LayerShares(
        total,
        mean / total,
        influence.std(0, ddof=1) / np.sqrt(len(by_item)),
        pairs.std(0, ddof=1) / np.sqrt(len(pairs)) / total,
    )
