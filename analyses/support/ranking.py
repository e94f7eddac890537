"""The rank of one among many that were measured on the same items, with its interval.

Two intervals, for neither is perfect. The *bootstrap* ranks all anew in every resample of clips: easily
read, but too narrow where some are nearly equal (Hall & Miller 2009, Ann Stat 37:3929). The *confidence set*
counts those that are better or worse beyond doubt, all differences tested together: 1 + (surely better) to
n - (surely worse), right for any ties (Mogstad et al. 2024, Rev Econ Stud 91:476), and wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import mata_interp as mi
from mata_interp.fusion.windows import DRAWS, cluster_bootstrap_means

__all__ = ["compared", "rank", "ranked"]


def rank(values: np.ndarray, place: int) -> np.ndarray:
    """Rank of ``values[..., place]`` among ``values[..., n]``, 1 for the largest; of equals, the middle."""
    own = values[..., place, None]
    return 1 + (values > own).sum(-1) + ((values == own).sum(-1) - 1) / 2


def ranked(values: np.ndarray, place: int, clusters: Sequence[str], seed: int) -> dict[str, Any]:
    """Rank of column ``place`` of effects [item, n] by their means: ``rank``, ``of``, and its 95 % bootstrap
    interval ``rank_low`` to ``rank_high`` over clusters."""
    mean, drawn = cluster_bootstrap_means(values, clusters, DRAWS, seed)
    low, high = np.percentile(rank(drawn, place), [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    found = {"rank": float(rank(mean, place)), "of": values.shape[1]}
    return {**found, "rank_low": float(low), "rank_high": float(high)}


def compared(
    values: np.ndarray, place: int, clusters: Sequence[str], kind: Any, seed: int, level: float = 0.95
) -> dict[str, Any]:
    """Column ``place`` of [item, n] against every other.

    Args:
        values: margins, nats, or for ``kind="binary"`` whether an answer is right.

    Returns:
        ``against_mean``: the effect of it over the others' mean. ``pairs``: of each other column, the
        `Effect` of going from that to this, its p Holm-corrected over all. ``set_low`` and ``set_high``: the
        confidence set of its rank from those.
    """
    others = [column for column in range(values.shape[1]) if column != place]
    effects = [
        mi.paired_effect(values[:, other], values[:, place], kind, clusters=clusters, seed=seed)
        for other in others
    ]
    corrected = mi.holm([effect.p for effect in effects])
    sure = [
        np.sign(effect.difference or 0.0) * (p <= 1 - level)
        for effect, p in zip(effects, corrected, strict=True)
    ]
    mean = values[:, others].mean(1)
    return {
        "against_mean": mi.paired_effect(mean, values[:, place], "margin", clusters=clusters, seed=seed),
        "pairs": {
            other: {**effect.to_dict(), "p_holm": float(p)}
            for other, effect, p in zip(others, effects, corrected, strict=True)
        },
        "set_low": 1 + sum(bool(s < 0) for s in sure),
        "set_high": values.shape[1] - sum(bool(s > 0) for s in sure),
    }
