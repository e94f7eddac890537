"""Counterfactual audio: for each item another clip of the same length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mata_interp.benchmarks import Item
from mata_interp.errors import ItemError

__all__ = ["counterfactual_items"]


def counterfactual_items(items: Sequence[Item], rate: int, seed: int) -> dict[str, Item]:
    """Each item with the audio of another clip, cut or repeated to the same number of samples.

    The other clip comes from another cluster. Clips of items with another answer are preferred, then those of
    the nearest length; ``seed`` breaks ties. Items of one cluster with one answer get the same clip. Of an
    item with several clips, each is replaced.

    Args:
        items: the items.
        rate: sampling rate of the model, in Hz.
        seed: seed of the order among equally good clips.

    Returns:
        Item id -> item. Items of a single cluster and items whose audio cannot be loaded have no entry.
    """
    usable: list[tuple[Item, list[int]]] = []
    for item in items:
        try:
            usable.append((item, [len(clip.samples) for clip in item.load_clips(rate)]))
        except ItemError:
            continue  # reported when the item itself is prefilled
    rank = np.random.default_rng(seed).permutation(len(usable))
    swaps: dict[str, Item] = {}
    for item, lengths in usable:
        candidates = []
        for (other, other_lengths), order in zip(usable, rank, strict=True):
            if other.cluster != item.cluster:
                preference = (other.answer == item.answer, abs(sum(other_lengths) - sum(lengths)), int(order))
                candidates.append((preference, other))
        if candidates:
            _, chosen = min(candidates, key=lambda pair: pair[0])
            clips = chosen.load_clips(rate)
            resized = [
                (np.resize(clips[n % len(clips)].samples, length), rate) for n, length in enumerate(lengths)
            ]
            swaps[item.id] = item.with_audio(resized)
    return swaps
