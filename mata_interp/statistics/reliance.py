"""Whether answers rely on the text or the audio: ratios of counts over the same items, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ArgumentError
from .clusters import cluster_codes
from .intervals import effective_fraction, ratio_interval
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


def proportion(true: ArrayLike, clusters: Iterable | None = None, level: float = 0.95) -> Rate:
    """Proportion of items of which something is true, e.g. correct answers.

    Args:
        true: Truth value of each item, ``[n]``.
        clusters: Label of each item's cluster; items of one cluster are not independent. None: all are.
        level: Coverage of the interval, which is made as in `text_dominance`.

    Raises:
        ArgumentError: Lengths differ, or level is not in (0, 1).

    >>> proportion([True, True, True, False]).value
    0.75
    """
    above = np.asarray(true, bool)
    return _proportion(above, np.ones_like(above), clusters, level)


def text_dominance(
    followed_text: ArrayLike,
    followed_audio: ArrayLike,
    clusters: Iterable | None = None,
    level: float = 0.95,
) -> Rate:
    """Text-dominance ratio (TDR) of items whose text contradicts their audio.

    TDR = followed text / (followed text + followed audio) (ALME, arXiv 2602.11488). Answers that follow
    neither count in ``n`` only. Above 1/2 the model follows the text more often.

    The interval is Wilson's, with an effective number of items where clusters have several
    (`mata_interp.statistics.intervals.effective_fraction`; Dean and Pagano 2015, J Surv Stat Methodol 3:484).
    Where the clusters do not differ, as with 0 or 100 %, each counts as one item.

    Args:
        followed_text: Whether each answer follows the text, ``[n]``.
        followed_audio: Whether each answer follows the audio, ``[n]``; never where it follows the text.
        clusters: Label of each item's cluster; items of one cluster are not independent. None: all are.
        level: Coverage of the interval.

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
    return _proportion(text, text | audio, clusters, level)


def text_prior(
    right_without: ArrayLike, right_with: ArrayLike, clusters: Iterable | None = None, level: float = 0.95
) -> Rate:
    """Text-prior rate R_TP: accuracy without the audio over accuracy with it, on the same items.

    Near 1 the audio is not needed. The rate can exceed 1. The interval is the score interval of the ratio of
    two rates of the same items (Nam and Blackwelder 2002, Stat Med 21:689), with an effective number of
    items where clusters have several, as in `text_dominance`.

    Args:
        right_without: Whether each item is answered correctly without the audio, ``[n]``.
        right_with: Whether it is answered correctly with the audio, in the same order, ``[n]``.
        clusters, level: As in `text_dominance`.

    Raises:
        ArgumentError: Lengths differ, or level is not in (0, 1).

    >>> text_prior([1, 1, 0, 0], [1, 1, 1, 1]).value
    0.5
    """
    without, with_audio = np.asarray(right_without, bool), np.asarray(right_with, bool)

    def ends(fraction: float) -> tuple[float, float]:
        cells = without & with_audio, without & ~with_audio, with_audio & ~without
        low, high = ratio_interval(*(fraction * cell.sum() for cell in cells), level=level)
        return float(low), float(high)

    return _rate(without, with_audio, clusters, level, ends, "score of a ratio")


def _proportion(true: np.ndarray, counted: np.ndarray, clusters: Iterable | None, level: float) -> Rate:
    """Items of which something is true among those that are counted; it is true of no other."""

    def ends(fraction: float) -> tuple[float, float]:
        return wilson_interval(fraction * true.sum(), fraction * counted.sum(), level)

    return _rate(true, counted, clusters, level, ends, "Wilson")


def _rate(
    above: np.ndarray,
    below: np.ndarray,
    clusters: Iterable | None,
    level: float,
    ends: Callable[[float], tuple[float, float]],
    method: str,
) -> Rate:
    """The ratio of two counts with the interval of independent items, adjusted for clusters.

    Args:
        above, below: Items of the numerator and of the denominator, bool ``[n]``.
        clusters, level: As in `text_dominance`.
        ends: The interval where all counts are multiplied by a number.
        method: Name of that interval.
    """
    check_level(level)
    labels = list(range(len(above))) if clusters is None else list(clusters)
    if not (above.ndim == 1 and above.shape == below.shape and len(labels) == len(above)):
        raise ArgumentError(f"lengths differ: {above.shape}, {below.shape} and {len(labels)} clusters")
    codes, n_clusters = cluster_codes(labels)
    top, bottom = int(above.sum()), int(below.sum())
    value, low, high = nan, nan, nan
    if bottom == 0:
        method = "none: nothing to divide by"
    else:
        value, counted = top / bottom, above | below  # the ratio depends on no other items
        residuals = (above.astype(float) - value * below)[counted]
        sizes = np.bincount(codes[counted])
        sums = np.bincount(codes[counted], residuals)
        if np.count_nonzero(sizes) < 2 and residuals.any():
            method = "none: one cluster"
        else:
            fraction = float(effective_fraction(sums, sizes, residuals @ residuals, level))
            low, high = ends(fraction)
            method += "" if fraction == 1 else ", clustered"
    return Rate(value, low, high, top, bottom, len(above), n_clusters, method)
