"""What happened to single answers: odds ratio of the flips, churn, and the size of a change of margins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import wilcoxon

from ..errors import ArgumentError
from .proportions import wilson_interval

__all__ = ["Flips", "count_flips", "odds_ratio", "standardised_change", "wilcoxon_p"]


@dataclass(frozen=True, kw_only=True)
class Flips:
    """How the answers to the same items changed.

    Attributes:
        n: number of items.
        fixed: wrong before, right after.
        broken: right before, wrong after.
        churned: wrong before and after, with another wrong answer. Accuracy does not show it.
        unchanged: the same answer.
    """

    n: int
    fixed: int
    broken: int
    churned: int
    unchanged: int

    @property
    def churn(self) -> float:
        """Fraction of items whose answer changed in any way; NaN without items."""
        return (self.n - self.unchanged) / self.n if self.n else nan


def count_flips(before: Iterable, after: Iterable, answer: Iterable) -> Flips:
    """Count fixed, broken, churned and unchanged answers.

    Args:
        before, after: the option chosen for each item, ``[n]``; None where no option was named.
        answer: the right option of each item, ``[n]``.

    Raises:
        ArgumentError: the three differ in length.

    >>> count_flips(["a", "b", "b", "c"], ["b", "a", "c", "c"], ["b", "b", "a", "c"])
    Flips(n=4, fixed=1, broken=1, churned=1, unchanged=1)
    """
    rows = list(zip(before, after, answer, strict=False))
    lengths = {len(list(column)) for column in (before, after, answer) if hasattr(column, "__len__")}
    if len(lengths) > 1:
        raise ArgumentError(f"before, after and answer differ in length: {sorted(lengths)}.")
    fixed = sum(x != right and y == right for x, y, right in rows)
    broken = sum(x == right and y != right for x, y, right in rows)
    churned = sum(x != right and y != right and x != y for x, y, right in rows)
    return Flips(
        n=len(rows),
        fixed=fixed,
        broken=broken,
        churned=churned,
        unchanged=len(rows) - fixed - broken - churned,
    )


def odds_ratio(fixed: int, broken: int, level: float = 0.95) -> tuple[float, float, float]:
    """Conditional odds ratio of the flips, fixed / broken, with its transformed Wilson interval.

    Fagerland, Lydersen and Laake (2014, Stat Med 33:2850): the Wilson interval of the fraction of fixed among
    changed items, p, as p / (1 - p). It takes items for independent.

    Args:
        fixed: items wrong before and right after.
        broken: items right before and wrong after.
        level: coverage of the interval.

    Returns:
        ratio, low, high. Infinite where nothing was broken; NaN, 0 and infinite where nothing changed.

    >>> tuple(round(x, 3) for x in odds_ratio(7, 1))
    (7.0, 1.122, 43.686)
    """
    if fixed < 0 or broken < 0:
        raise ArgumentError(f"counts must not be negative: fixed {fixed}, broken {broken}.")
    if fixed + broken == 0:
        return nan, 0.0, inf
    low, high = wilson_interval(fixed, fixed + broken, level)
    ratio = fixed / broken if broken else inf
    return ratio, low / (1 - low), high / (1 - high) if broken else inf


def standardised_change(before: ArrayLike, after: ArrayLike) -> float:
    """Mean change divided by the standard deviation of the changes (d_z); NaN without a spread.

    Args:
        before, after: a margin for each item, ``[n]``.

    >>> round(standardised_change([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]), 3)
    2.0
    """
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    spread = float(change.std(ddof=1)) if len(change) > 1 else 0.0
    return float(change.mean() / spread) if spread > 0 else nan


def wilcoxon_p(before: ArrayLike, after: ArrayLike) -> float:
    """p-value of Wilcoxon's signed-rank test, two-sided (Pratt's treatment of zeros); NaN if nothing changed.

    It takes items for independent, and tests the symmetry of the changes about 0, not their mean.

    Args:
        before, after: a margin for each item, ``[n]``.

    >>> round(wilcoxon_p([0.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 4)
    0.0312
    """
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if not change.any():
        return nan
    return float(wilcoxon(change, zero_method="pratt").pvalue)  # type: ignore[attr-defined]
