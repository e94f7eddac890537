"""Another sound for each item, as long as its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mata_interp.benchmarks import Item
from mata_interp.errors import ItemError

__all__ = ["other_sounds"]


def other_sounds(items: Sequence[Item], rate: int, seed: int) -> dict[str, Item]:
    """Item id -> the item with the sound of another clip, cut or repeated to the same number of samples.

    Of clips of other clusters, one whose length is nearest among those asked about with another answer where
    there are such; equals are drawn by ``seed``, and items of one cluster with one answer get the same. Items
    of a single cluster, and items whose sound cannot be used, get none.
    """
    usable: list[tuple[Item, int]] = []
    for item in items:
        try:
            usable.append((item, len(item.load_audio(rate).samples)))
        except ItemError:
            continue  # said when the item itself is asked
    rank = np.random.default_rng(seed).permutation(len(usable))
    found: dict[str, Item] = {}
    for item, length in usable:
        others = [
            ((other.answer == item.answer, abs(theirs - length), int(order)), other)
            for (other, theirs), order in zip(usable, rank, strict=True)
            if other.cluster != item.cluster
        ]
        if others:
            sound = min(others, key=lambda pair: pair[0])[1].load_audio(rate).samples
            found[item.id] = item.with_audio((np.resize(sound, length), rate))
    return found
