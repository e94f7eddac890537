"""Two proportions of the same items: tests and intervals from the counts of the paired 2 x 2 table.

Every item was answered twice, before and after. ``fixed`` counts those wrong before and right after,
``broken`` the reverse; a difference is ``after - before = (fixed - broken) / n``.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Any

import numpy as np
from scipy.stats import binom, norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from ..errors import ArgumentError

__all__ = [
    "check_level",
    "mcnemar_exact",
    "mcnemar_mid",
    "tango_interval",
    "tango_score",
    "wilson_interval",
]


def mcnemar_exact(fixed: int, broken: int) -> float:
    """p-value of the two-sided exact conditional McNemar test: are fixed and broken equally likely?

    It never rejects more often than its level, and mostly much less often: see `mcnemar_mid`.

    Args:
        fixed: Items wrong before and right after.
        broken: Items right before and wrong after.

    >>> mcnemar_exact(1, 7)
    0.0703125
    """
    result: Any = mcnemar([[0, fixed], [broken, 0]], exact=True)
    return float(result.pvalue)


def mcnemar_mid(fixed: int, broken: int) -> float:
    """p-value of the two-sided mid-p McNemar test: the exact one with half the weight on the observed table.

    Fagerland, Lydersen & Laake (2013, BMC Med Res Methodol 13:91) recommend it over the exact test: it
    exceeded its level in none of their 9,595 settings, though nothing guarantees that.

    Args:
        fixed: Items wrong before and right after.
        broken: Items right before and wrong after.

    >>> round(mcnemar_mid(1, 7), 7)
    0.0390625
    """
    fewer, changed = min(fixed, broken), fixed + broken
    return float(min(1.0, 2 * binom.cdf(fewer, changed, 0.5) - binom.pmf(fewer, changed, 0.5)))


def tango_score(fixed: float, broken: float, n: float, difference: float) -> float:
    """Tango's score statistic for a hypothetical difference; standard normal where that is the truth.

    Tango (1998, Stat Med 17:891): the observed minus the hypothetical difference, over its standard
    error with the unknown chance of "broken" at its maximum likelihood under the hypothesis.
    """
    excess = fixed - broken - n * difference
    if excess == 0:
        return 0.0
    # The likelihood of q, the chance of "broken", peaks at the positive root of a q^2 + b q + c = 0.
    a = 2 * n
    b = -fixed - broken + (2 * n - fixed + broken) * difference
    c = -broken * difference * (1 - difference)
    root = sqrt(max(0.0, b * b - 4 * a * c))
    q = (root - b) / (2 * a) if b <= 0 else -2 * c / (root + b)  # the form that does not cancel
    variance = n * (2 * q + difference * (1 - difference))
    return excess / sqrt(variance) if variance > 0 else inf * excess


def tango_interval(fixed: float, broken: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Tango's asymptotic score interval for the difference of two paired proportions.

    It holds every difference that the score test at this level does not reject (Tango 1998, Stat Med
    17:891). So it leaves out zero exactly when the asymptotic McNemar test rejects, stays inside -1
    to 1, and has a width even where no item changed.

    Args:
        fixed: Items wrong before and right after. Counts need not be whole (effective sample sizes).
        broken: Items right before and wrong after.
        n: All items, changed or not.
        level: Coverage of the interval, e.g. 0.95.

    Returns:
        ``(low, high)`` of after - before; ``(-1, 1)`` where n is 0.

    Raises:
        ArgumentError: A count is negative, more items changed than there are, or level is not in (0, 1).

    >>> tuple(round(end, 3) for end in tango_interval(9, 3, 32))
    (-0.027, 0.39)
    """
    check_level(level)
    if not (fixed >= 0 and broken >= 0 and fixed + broken <= n * (1 + 1e-12)):
        raise ArgumentError(f"counts do not fit together: fixed {fixed}, broken {broken}, n {n}")
    z = float(norm.ppf((1 + level) / 2))
    # The upper limit is the lower one with before and after swapped: symmetric to the last bit.
    return _tango_low(fixed, broken, n, z), -_tango_low(broken, fixed, n, z)


def _tango_low(fixed: float, broken: float, n: float, z: float) -> float:
    estimate = (fixed - broken) / n if n else 0.0
    if estimate <= -1 or n == 0:
        return -1.0
    low, high = -1.0, estimate  # where the score is infinite, and where it is zero
    while low < (middle := (low + high) / 2) < high:
        if tango_score(fixed, broken, n, middle) > z:
            low = middle
        else:
            high = middle
    return middle


def wilson_interval(count: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of one proportion (Wilson 1927, JASA 22:209).

    Args:
        count: Items of which something is true. Counts need not be whole (effective sample sizes).
        n: All items, at least one.
        level: Coverage of the interval.

    >>> tuple(round(end, 4) for end in wilson_interval(81, 263))
    (0.2553, 0.3662)
    """
    check_level(level)
    low, high = np.asarray(proportion_confint(count, n, alpha=1 - level, method="wilson"), dtype=float)
    return float(low), float(high)


def check_level(level: float) -> None:
    """Raise a ArgumentError for a confidence level that is not strictly between 0 and 1."""
    if not 0 < level < 1:
        raise ArgumentError(f"level must lie strictly between 0 and 1, e.g. 0.95, got {level!r}")
