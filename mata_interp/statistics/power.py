"""What a comparison of n items can detect, and how many items a change needs.

Correctness is paired: only items whose correctness changes say anything. With n items, a fraction d of them
discordant and a true difference D, the number of discordant items is binomial(n, d), and each of those is
fixed with the chance (d + D) / (2 d). Power is the exact chance that McNemar's mid-p test rejects.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm

from ..errors import ArgumentError

__all__ = ["detectable_difference", "detectable_margin", "items_needed", "paired_power"]

_MOST = 10_000_000


def paired_power(
    n: float, discordance: float, difference: float, level: float = 0.05, design_effect: float = 1.0
) -> float:
    """Chance that McNemar's mid-p test detects a true difference of paired proportions.

    Args:
        n: number of items.
        discordance: fraction of items whose correctness changes, 0 to 1.
        difference: true change of accuracy, at most ``discordance`` in size.
        level: significance level, two-sided.
        design_effect: variance relative to independent items; n / design_effect items count.

    Returns:
        The power, 0 to 1.

    Raises:
        ArgumentError: an argument is out of range.

    >>> round(paired_power(n=400, discordance=0.10, difference=0.05), 2)
    0.89
    """
    _check(discordance, difference, level)
    if n < 0 or design_effect <= 0:
        raise ArgumentError("n must not be negative, and design_effect must be above 0.")
    items = int(n / design_effect)
    changed = np.arange(items + 1)
    weight = binom.pmf(changed, items, discordance)
    likely = weight > 1e-12
    return float(weight[likely] @ _rejections(changed[likely], (1 + difference / discordance) / 2, level))


def detectable_difference(
    n: float, discordance: float, power: float = 0.8, level: float = 0.05, design_effect: float = 1.0
) -> float:
    """The smallest change of accuracy that n items detect with the wanted power.

    Args:
        n, discordance, level, design_effect: as in `paired_power`.
        power: wanted power.

    Returns:
        The difference as a fraction; NaN if even the largest, in which every changed item is fixed, is
        detected less often.

    >>> round(detectable_difference(n=400, discordance=0.10), 3)
    0.044
    """

    def excess(difference: float) -> float:
        return paired_power(n, discordance, difference, level, design_effect) - power

    if excess(discordance) < 0:
        return float("nan")
    return float(brentq(excess, 0.0, discordance, xtol=1e-5))  # type: ignore[arg-type]


def items_needed(
    difference: float, discordance: float, power: float = 0.8, level: float = 0.05, design_effect: float = 1.0
) -> int:
    """Number of items with which a change of accuracy is detected with the wanted power.

    Args:
        difference: the true change, not 0.
        discordance, level, design_effect: as in `paired_power`.
        power: wanted power.

    Raises:
        ArgumentError: an argument is out of range, or no number of items up to ten million is enough.

    >>> items_needed(difference=0.05, discordance=0.10)
    312
    """
    _check(discordance, difference, level)
    if difference == 0:
        raise ArgumentError("A change of 0 cannot be detected by any number of items.")
    # Connor (1987, Biometrics 43:207), as the start of a search with the exact power
    z = norm.ppf(1 - level / 2) * np.sqrt(discordance)
    z += norm.ppf(power) * np.sqrt(max(discordance - difference**2, 0.0))
    n = max(1, ceil(float((z / difference) ** 2) * 0.8))
    step = max(1, n // 100)
    while paired_power(n, discordance, difference, level) < power:
        n += step
        if n > _MOST:
            raise ArgumentError("More than ten million items would be needed.")
    while n > 1 and step > 0 and paired_power(n - 1, discordance, difference, level) >= power:
        n -= 1
    return ceil(n * design_effect)


def detectable_margin(
    n: float, sd: float, power: float = 0.8, level: float = 0.05, design_effect: float = 1.0
) -> float:
    """The smallest mean change of a margin that n items detect with the wanted power (normal approximation).

    Args:
        n: number of items.
        sd: standard deviation of the items' changes, in nats.
        power, level, design_effect: as in `detectable_difference`.

    >>> round(detectable_margin(n=400, sd=1.0), 3)
    0.14
    """
    return float((norm.ppf(1 - level / 2) + norm.ppf(power)) * sd * np.sqrt(design_effect / n))


def _check(discordance: float, difference: float, level: float) -> None:
    if not 0 < discordance <= 1:
        raise ArgumentError(f"discordance is {discordance}: it must lie between 0 and 1.")
    if abs(difference) > discordance * (1 + 1e-12):
        raise ArgumentError(
            f"A change of {difference:g} needs at least as many discordant items, not {discordance:g}."
        )
    if not 0 < level < 1:
        raise ArgumentError(f"level is {level}: it must lie between 0 and 1.")


def _rejections(changed: np.ndarray, chance: float, level: float) -> np.ndarray:
    """Of each number of changed items, the chance that the mid-p test rejects: ``[m]``.

    It rejects if fixed <= c or fixed >= changed - c, where c is the largest number with a mid-p,
    P(X <= c) + P(X <= c - 1) for X binomial(changed, 1/2), of at most ``level``.
    """
    c = binom.ppf(level / 2, changed, 0.5)  # the smallest number with P(X <= c) >= level / 2
    c -= binom.cdf(c, changed, 0.5) + binom.cdf(c - 1, changed, 0.5) > level
    chances = binom.cdf(c, changed, chance) + binom.sf(changed - c - 1, changed, chance)
    return np.where((c >= 0) & (changed > 0), chances, 0.0).clip(0, 1)
