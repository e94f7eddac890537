"""Chance level: the accuracy of answers drawn at random from the options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan

import pandas as pd

__all__ = ["chance_of", "mean_chance"]


def mean_chance(options: Iterable[Sequence[str]]) -> float:
    """Mean over the items of one over the number of options; NaN without items.

    Args:
        options: The options of each item.

    >>> mean_chance([["a", "b"], ["a", "b", "c", "d"]])
    0.375
    """
    chances = [1 / len(of_item) for of_item in options]
    return sum(chances) / len(chances) if chances else nan


def chance_of(records: pd.DataFrame) -> float:
    """`mean_chance` of the column ``choices``; NaN where the options are not recorded."""
    return mean_chance(records["choices"]) if "choices" in records else nan
