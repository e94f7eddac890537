"""Two proportions of the same items: tests and intervals from the counts of the paired 2 x 2 table.

Every item was answered twice, before and after. ``fixed`` counts those wrong before and right after,
``broken`` the reverse; a difference is ``after - before = (fixed - broken) / n``.
"""

from __future__ import annotations

from math import inf, sqrt

from scipy.stats import binom, norm

__all__ = ["mcnemar_exact", "mcnemar_mid", "newcombe_interval", "tango_interval", "tango_score", "wilson"]


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Two-sided exact conditional McNemar test: are fixed and broken equally likely?

    Never rejects more often than its level, and mostly much less often: see `mcnemar_mid`.
    """
    return float(min(1.0, 2 * binom.cdf(min(fixed, broken), fixed + broken, 0.5)))


def mcnemar_mid(fixed: int, broken: int) -> float:
    """Two-sided mid-p McNemar test: the exact one, counting only half of what was observed itself.

    Fagerland, Lydersen & Laake (2013, BMC Med Res Methodol 13:91) recommend it over the exact test: it
    exceeded its level in none of their 9,595 settings, though nothing guarantees that.
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
        fixed: items wrong before and right after. Counts need not be whole (effective sample sizes).
        broken: items right before and wrong after.
        n: all items, changed or not.
        level: the coverage aimed at, e.g. 0.95.

    Returns:
        ``(low, high)`` of after - before; ``(-1, 1)`` where n is 0.

    Raises:
        ValueError: a count is negative, more items changed than there are, or level is not in (0, 1).
    """
    check_level(level)
    if not (fixed >= 0 and broken >= 0 and fixed + broken <= n * (1 + 1e-12)):
        raise ValueError(f"counts do not fit together: fixed {fixed}, broken {broken}, n {n}")
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


def newcombe_interval(
    both: int, fixed: int, broken: int, neither: int, level: float = 0.95
) -> tuple[float, float]:
    """Newcombe's square-and-add interval for the difference of two paired proportions.

    Method 10 of Newcombe (1998, Stat Med 17:2635): Wilson intervals of the two proportions, joined
    with their correlation phi, which is continuity-corrected where it is positive (formula as given by
    Fagerland, Lydersen & Laake 2014, Stat Med 33:2850).

    Args:
        both: items right before and after.
        fixed: items wrong before and right after.
        broken: items right before and wrong after.
        neither: items wrong before and after.
        level: the coverage aimed at, e.g. 0.95.

    Returns:
        ``(low, high)`` of after - before; ``(-1, 1)`` where there is no item.

    Raises:
        ValueError: a count is negative, or level is not in (0, 1).
    """
    check_level(level)
    if min(both, fixed, broken, neither) < 0:
        raise ValueError(f"counts must not be negative: {both}, {fixed}, {broken}, {neither}")
    n = both + fixed + broken + neither
    if n == 0:
        return -1.0, 1.0
    z = float(norm.ppf((1 + level) / 2))
    after, before = (both + fixed) / n, (both + broken) / n
    after_low, after_high = wilson(both + fixed, n, z)
    before_low, before_high = wilson(both + broken, n, z)
    phi = _corrected_phi(both, fixed, broken, neither)

    def radius(x: float, y: float) -> float:
        return sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    difference = (fixed - broken) / n
    low = difference - radius(after - after_low, before_high - before)
    high = difference + radius(after_high - after, before - before_low)
    return max(-1.0, low), min(1.0, high)


def wilson(count: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval of one proportion (Wilson 1927, JASA 22:209)."""
    centre = (count + z * z / 2) / (n + z * z)
    radius = z * sqrt(count * (n - count) / n + z * z / 4) / (n + z * z)
    return max(0.0, centre - radius), min(1.0, centre + radius)


def _corrected_phi(both: int, fixed: int, broken: int, neither: int) -> float:
    margins = (both + fixed) * (broken + neither) * (both + broken) * (fixed + neither)
    if margins == 0:
        return 0.0
    n = both + fixed + broken + neither
    cross = both * neither - fixed * broken
    return (max(0.0, cross - n / 2) if cross > 0 else cross) / sqrt(margins)


def check_level(level: float) -> None:
    """Refuse a confidence level that is not strictly between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, e.g. 0.95, got {level!r}")
