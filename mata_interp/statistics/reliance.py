"""Whether answers rely on the text or the audio: ratios of counts over the same items, with intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ArgumentError
from .clusters import cluster_bootstrap_means, cluster_codes
from .proportions import check_level, wilson_interval

__all__ = ["Rate", "proportion", "text_dominance", "text_prior"]


@dataclass(frozen=True)
class Rate:
    """A ratio of two counts.

    Attributes:
        value: ``numerator / denominator``; NaN where the denominator is 0.
        low, high: Interval of the value; NaN where there is none.
        numerator, denominator: Counts of items.
        n, n_clusters: Number of all items, and of their clusters.
        method: How the interval was made.
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
        """The attributes as a dict."""
        return asdict(self)


def proportion(true: ArrayLike, clusters: Iterable | None = None, level: float = 0.95, seed: int = 0) -> Rate:
    """Proportion of items of which something is true, e.g. correct answers.

    Args:
        true: Truth value of each item, ``[n]``.
        clusters: Label of each item's cluster; items of one cluster are not independent. None: all are.
        level: Coverage of the interval, which is made as in `text_dominance`.
        seed: Seed of the bootstrap.

    Raises:
        ArgumentError: Lengths differ, or level is not in (0, 1).

    >>> proportion([True, True, True, False]).value
    0.75
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
    """Text-dominance ratio (TDR) of items whose text contradicts their audio.

    TDR = followed text / (followed text + followed audio) (ALME, arXiv 2602.11488). Answers that follow
    neither count in ``n`` only. Above 1/2 the model follows the text more often.

    The interval is Wilson's where every item is a cluster of its own, else a percentile bootstrap that
    resamples whole clusters. Where all answers follow the same side, resamples do not vary, and the interval
    is Wilson's with clusters in place of items.

    Args:
        followed_text: Whether each answer follows the text, ``[n]``.
        followed_audio: Whether each answer follows the audio, ``[n]``; never where it follows the text.
        clusters: Label of each item's cluster; items of one cluster are not independent. None: all are.
        level: Coverage of the interval.
        seed: Seed of the bootstrap.

    Raises:
        ArgumentError: An item follows both, lengths differ, or level is not in (0, 1).

    >>> rate = text_dominance([1, 1, 0, 0], [0, 0, 1, 0])
    >>> rate.numerator, rate.denominator, rate.n
    (2, 3, 4)
    """
    text, audio = np.asarray(followed_text, bool), np.asarray(followed_audio, bool)
    if text.shape == audio.shape and (text & audio).any():
        raise ArgumentError(
            f"{int((text & audio).sum())} items follow both text and audio, which contradict each other"
        )
    return _ratio(text, text | audio, clusters, level, seed, proportion=True)


def text_prior(
    right_without: ArrayLike,
    right_with: ArrayLike,
    clusters: Iterable | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Rate:
    """Text-prior rate R_TP: accuracy without the audio over accuracy with it, on the same items.

    Near 1 the audio is not needed. The rate can exceed 1. The interval is a percentile bootstrap that
    resamples whole clusters; each item keeps both its answers.

    Args:
        right_without: Whether each item is answered correctly without the audio, ``[n]``.
        right_with: Whether it is answered correctly with the audio, in the same order, ``[n]``.
        clusters, level, seed: As in `text_dominance`.

    Raises:
        ArgumentError: Lengths differ, or level is not in (0, 1).

    >>> text_prior([1, 1, 0, 0], [1, 1, 1, 1]).value
    0.5
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
        raise ArgumentError(f"lengths differ: {above.shape}, {below.shape} and {len(labels)} clusters")
    codes, n_clusters = cluster_codes(labels)
    top, bottom = int(above.sum()), int(below.sum())
    if bottom == 0:
        low, high, method = nan, nan, "none: nothing to divide by"
    elif proportion and (n_clusters == len(above) or top in (0, bottom)):
        decided = len(np.unique(codes[below]))  # clusters that count; every item is one if not clustered
        low, high = wilson_interval(top * decided / bottom, decided, level)
        method = "Wilson"
    elif n_clusters < 2:
        low, high, method = nan, nan, "none: one cluster"
    else:
        low, high = _ratio_interval(above, below, labels, level, seed)
        method = "bootstrap of clusters"
    return Rate(top / bottom if bottom else nan, low, high, top, bottom, len(above), n_clusters, method)


def _ratio_interval(
    above: np.ndarray, below: np.ndarray, labels: list, level: float, seed: int
) -> tuple[float, float]:
    """Percentiles of the resampled ratio; a resample in which the denominator is 0 counts as infinite."""
    _, means = cluster_bootstrap_means(np.stack([above, below], axis=1), labels, seed=seed)
    top, bottom = means.T  # (draws,) each
    ratios = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), inf)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)
