"""The rank of one configuration among several that were measured on the same items, with its interval.

There are two intervals, each with a weakness. The *bootstrap* interval ranks all configurations in every
resample of clips; it is easy to interpret, but too narrow if some are nearly equal (Hall & Miller 2009, Ann
Stat 37:3929). The *confidence set* counts the configurations that are significantly better or worse, with all
differences tested
together: from 1 + (number better) to n - (number worse). It is valid with ties (Mogstad et al. 2024, Rev Econ
    Stud 91:476), and wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mata_interp.fusion.windows import DRAWS, draw_profiles
from mata_interp.statistics import holm, paired_effect

__all__ = ["compared", "rank", "ranked"]


def rank(values: np.ndarray, place: int) -> np.ndarray:
    """Rank of ``values[..., place]`` among ``values[..., n]``: 1 is the largest; equal ones share a rank."""
    value = values[..., place, None]
    return 1 + (values > value).sum(-1) + ((values == value).sum(-1) - 1) / 2


def ranked(values: np.ndarray, place: int, clusters: Sequence[str], seed: int) -> dict[str, Any]:
    """Rank of column ``place`` of effects ``[item, n]`` by their means.

    Returns:
        ``rank``; ``of``, the number of columns; ``rank_low`` and ``rank_high``, the 95 % bootstrap interval
        over clusters.
    """
    mean, drawn = draw_profiles(values, clusters, DRAWS, seed)
    low, high = np.percentile(rank(drawn, place), [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return {
        "rank": float(rank(mean, place)),
        "of": values.shape[1],
        "rank_low": float(low),
        "rank_high": float(high),
    }


def compared(
    values: np.ndarray, place: int, clusters: Sequence[str], kind: Any, seed: int, level: float = 0.95
) -> dict[str, Any]:
    """Compare column ``place`` of ``values`` ``[item, n]`` with every other column.

    Args:
        values: log-probability differences in nats or, for ``kind="binary"``, whether an answer is right.
        place: index of the column.
        clusters: cluster of each item.
        kind: kind of the paired effects, ``"margin"`` or ``"binary"``.
        seed: of the bootstrap.
        level: confidence level of the set of ranks.

    Returns:
        ``against_mean``: the effect against the mean of the others. ``pairs``: other column -> the effect of
        going from it to this column, with ``p_holm``, Holm-adjusted over all. ``set_low`` and ``set_high``:
        the confidence set of the rank.
    """
    rivals = [column for column in range(values.shape[1]) if column != place]
    effects = [
        paired_effect(values[:, other], values[:, place], kind, clusters=clusters, seed=seed)
        for other in rivals
    ]
    adjusted = holm([effect.p for effect in effects])
    significant = [
        np.sign(effect.difference or 0.0) * (p <= 1 - level)
        for effect, p in zip(effects, adjusted, strict=True)
    ]
    mean = values[:, rivals].mean(1)
    return {
        "against_mean": paired_effect(mean, values[:, place], "margin", clusters=clusters, seed=seed),
        "pairs": {
            other: {**effect.to_dict(), "p_holm": float(p)}
            for other, effect, p in zip(rivals, effects, adjusted, strict=True)
        },
        "set_low": 1 + sum(bool(s < 0) for s in significant),
        "set_high": values.shape[1] - sum(bool(s > 0) for s in significant),
    }
