"""What answers rely on, text or sound, as ratios of counts over the same items, with intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from .proportions import check_level, wilson

__all__ = ["Rate", "proportion", "text_dominance", "text_prior"]

DRAWS = 9_999


@dataclass(frozen=True)
class Rate:
    """A ratio of two counts.

    Attributes:
        value: numerator / denominator; NaN where the denominator is 0.
        low, high: its interval; NaN where there is none.
        numerator, denominator: of items.
        n, n_clusters: all items that were looked at, and independent groups of them.
        method: of the interval.
    """

    value: float
    low: float
    high: float
    numerator: int
    denominator: int
    n: int
    n_clusters: int
    method: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def proportion(true: ArrayLike, clusters: Iterable | None = None, level: float = 0.95, seed: int = 0) -> Rate:
    """The share of items of which something is true, e.g. right answers; its interval as `text_dominance`'s.

    Args:
        true: ``[n]`` true or false of each item.
        clusters: a label for each item; those with the same one are not independent.
    """
    above = np.asarray(true, bool)
    return _ratio(above, np.ones_like(above), clusters, level, seed, proportion=True)


def text_dominance(
    followed_text: ArrayLike,
    followed_audio: ArrayLike,
    clusters: Iterable | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Rate:
    """The text-dominance ratio TDR of items whose text contradicts their sound.

    TDR = followed text / (followed text + followed audio) (ALME, arXiv 2602.11488); answers that follow
    neither are in ``n`` only. Above 1/2 the model trusts the text more.

    The interval is Wilson's where every item is a cluster of its own, else a percentile bootstrap that draws
    whole clusters. Where all answers follow the same side nothing can be drawn: Wilson's, counting clusters.

    Args:
        followed_text, followed_audio: ``[n]`` true or false of each item, never both.
        clusters: a label for each item; those with the same one are not independent.

    Raises:
        ValueError: an item follows both, lengths differ, or level is not in (0, 1).
    """
    text, audio = np.asarray(followed_text, bool), np.asarray(followed_audio, bool)
    if text.shape == audio.shape and (text & audio).any():
        raise ValueError(
            f"{int((text & audio).sum())} items follow both text and audio: they are no conflict"
        )
    return _ratio(text, text | audio, clusters, level, seed, proportion=True)


def text_prior(
    right_without: ArrayLike,
    right_with: ArrayLike,
    clusters: Iterable | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Rate:
    """The text-prior rate R_TP: accuracy without the audio over accuracy with it, on the same items.

    Near 1 the audio is not needed. It can exceed 1. The interval is a percentile bootstrap that draws whole
    clusters of items, each with both its answers.

    Args:
        right_without, right_with: ``[n]`` true or false, of the same items in the same order.
        clusters: as in `text_dominance`.
    """
    return _ratio(
        np.asarray(right_without, bool), np.asarray(right_with, bool), clusters, level, seed, proportion=False
    )


def _ratio(
    above: np.ndarray, below: np.ndarray, clusters: Iterable | None, level: float, seed: int, proportion: bool
) -> Rate:
    check_level(level)
    labels = list(range(len(above))) if clusters is None else list(clusters)
    if not (above.ndim == 1 and above.shape == below.shape and len(labels) == len(above)):
        raise ValueError(f"lengths differ: {above.shape}, {below.shape} and {len(labels)} clusters")
    index: dict = {}
    codes = np.array([index.setdefault(label, len(index)) for label in labels], dtype=int)
    tops, bottoms = (np.bincount(codes, weights=x, minlength=len(index)) for x in (above, below))
    top, bottom = int(above.sum()), int(below.sum())
    single, decided = len(index) == len(above), int((bottoms > 0).sum())
    if bottom == 0:
        low, high, method = nan, nan, "none: nothing to divide by"
    elif proportion and (single or top in (0, bottom)):
        share = decided / bottom  # every item by itself: 1
        low, high = wilson(top * share, decided, float(norm.ppf((1 + level) / 2)))
        method = "Wilson"
    elif len(index) < 2:
        low, high, method = nan, nan, "none: one cluster"
    else:
        low, high = _bootstrap(tops, bottoms, level, seed)
        method = "bootstrap of clusters"
    return Rate(top / bottom if bottom else nan, low, high, top, bottom, len(above), len(index), method)


def _bootstrap(tops: np.ndarray, bottoms: np.ndarray, level: float, seed: int) -> tuple[float, float]:
    """Percentiles of the ratio of sums over drawn clusters; a draw with nothing below counts as infinite."""
    # clusters with the same counts are interchangeable: how often each kind is drawn is all that matters
    kinds, counts = np.unique(np.stack([tops, bottoms], axis=1), axis=0, return_counts=True)  # (K, 2), (K,)
    drawn = np.random.default_rng(seed).multinomial(len(tops), counts / len(tops), size=DRAWS)
    above, below = (drawn @ kinds).T
    ratios = np.where(below > 0, above / np.maximum(below, 1), inf)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)
