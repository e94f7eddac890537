"""Items that are asked more than once: with their options in other orders, or for several sampled answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

from ..benchmarks import Item, Items
from ..benchmarks.entries import as_items
from ..errors import ArgumentError, unknown_name
from ..seeding import named_generator

__all__ = ["OPTION_ORDERS", "OptionOrder", "reorder_options", "repeat_items"]

OptionOrder = Literal["original", "shuffled", "cyclic"]
OPTION_ORDERS: tuple[OptionOrder, ...] = get_args(OptionOrder)


def reorder_options(items: Items, order: OptionOrder = "shuffled", seed: int = 0) -> Items:
    """The items with their options in another order, against a preference for positions.

    All copies of an item have its audio, so that they are in one cluster: intervals and tests of a study or a
    run treat them as one unit.

    Args:
        items: the items.
        order: ``"original"``; ``"shuffled"``: each item's options in a random order of its own; ``"cyclic"``:
            each item once for each of its options, which moves on by one place (ids end in ``, order 2``).
        seed: seed of the random orders.

    Raises:
        ArgumentError: there is no such order.

    >>> import mata_interp as mi
    >>> items = mi.load_benchmark("listening")[:1]
    >>> [item.choices[0] for item in reorder_options(items, "cyclic")] == list(items[0].choices)
    True
    """
    if order not in OPTION_ORDERS:
        raise ArgumentError(unknown_name("option order", order, OPTION_ORDERS))
    items = as_items(items)
    if order == "original":
        return items
    copies = _shuffled(items, seed) if order == "shuffled" else _cyclic(items)
    return _collected(items, copies)


def repeat_items(items: Items, samples: int) -> Items:
    """Each item several times, for several sampled answers to the same question.

    What is sampled is a function of the seed and of the item's id, so that the copies get answers of their
    own. They are in one cluster, as in `reorder_options`: the cluster-robust interval takes the place of a
    form of Tango's interval for several runs, because it also holds where several items share a recording
    (`analyses/calibration.md`, clips of several items).

    Args:
        items: the items.
        samples: number of copies of each (ids end in ``, sample 2``).

    Raises:
        ArgumentError: ``samples`` is below 1.

    >>> import mata_interp as mi
    >>> items = mi.load_benchmark("listening").filter(condition="neutral")[:2]  # of two clips
    >>> len(repeat_items(items, 3)), len({item.cluster for item in repeat_items(items, 3)})
    (6, 2)
    """
    if samples < 1:
        raise ArgumentError(f"samples is {samples}: it must be at least 1.")
    items = as_items(items)
    if samples == 1:
        return items
    copies = (
        item if number == 1 else replace(item, id=f"{item.id}, sample {number}", shared_clips=None)
        for item in items
        for number in range(1, samples + 1)
    )
    return _collected(items, copies)


def _shuffled(items: Items, seed: int) -> Iterator[Item]:
    for item in items:
        order = named_generator(seed, f"option order of {item.id}").permutation(len(item.choices))
        yield replace(item, choices=tuple(item.choices[n] for n in order), shared_clips=None)


def _cyclic(items: Items) -> Iterator[Item]:
    for item in items:
        for start in range(len(item.choices)):
            choices = (*item.choices[start:], *item.choices[:start])
            name = item.id if start == 0 else f"{item.id}, order {start + 1}"
            yield replace(item, id=name, choices=choices, shared_clips=None)


def _collected(items: Items, copies: Iterator[Item]) -> Items:
    made = Items.from_records(list(copies), items.name)
    return replace(made, excluded=(*items.excluded, *made.excluded))
