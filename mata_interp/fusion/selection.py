"""Which items of a benchmark a window is chosen on: the same in Python and on the command line."""

from __future__ import annotations

from mata_interp.benchmarks import Items
from mata_interp.defaults import LAYER_ITEMS
from mata_interp.errors import RunError

__all__ = ["selection_items"]


def selection_items(items: Items, count: int | None = LAYER_ITEMS, seed: int = 0) -> Items:
    """The items on which ``mata-interp layers`` and ``--layers auto`` choose a window.

    Items of the selection split, those without a caption where there are any: a clip asked about under three
    captions is still one clip, and intervals count clips.

    Args:
        items: a benchmark.
        count: number of items, in whole clips; None: all.
        seed: seed of the random order, and of the split where the items have none of their own.

    Raises:
        RunError: the selection split is empty.

    Examples:
        >>> import mata_interp as mi
        >>> items = mi.load_benchmark("listening")
        >>> few = mi.selection_items(items, 24)
        >>> len(few), {item.split for item in few}, {item.condition for item in few}
        (24, {'selection'}, {'neutral'})
    """
    chosen = items.split("selection", seed=seed)
    if not len(chosen):
        raise RunError(f"{items.name} has no item in its selection split.")
    neutral = chosen.filter(condition="neutral")
    chosen = neutral if len(neutral) else chosen
    return chosen if count is None else chosen.sample(count, seed=seed)
