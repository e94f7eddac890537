"""The alpha at which a sham disturbs attention as much as MATA does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ArgumentError

__all__ = ["TOLERANCE", "Match", "match_alpha"]

TOLERANCE = 0.02  # of the target
EVALUATIONS = 12
LARGEST = 100.0


@dataclass(frozen=True)
class Match:
    """The alpha whose strength is closest to a target.

    Attributes:
        alpha: Rounded to four digits.
        strength: The strength at this alpha.
        target: The wanted strength.
        tried: (alpha, strength) of every evaluation, in order.
    """

    alpha: float
    strength: float
    target: float
    tried: tuple[tuple[float, float], ...]


def match_alpha(strength: Callable[[float], float], target: float, start: float) -> Match:
    """Find ``alpha`` with ``strength(alpha)`` within 2 % of ``target``; else the nearest of 12 evaluations.

    For small alpha the KL divergence of an edited row grows as alpha squared, which is a straight line in the
    logarithms of both. The search follows that line within the current bracket, and halves the bracket where
    the line leaves it, so that it also works where the strength saturates.

    Args:
        strength: Mean row KL in nats at an alpha > 0; increasing.
        target: The wanted strength, above 0.
        start: The first alpha tried, e.g. MATA's own.

    Raises:
        ArgumentError: ``target`` is not above 0.

    >>> match_alpha(lambda alpha: alpha**2, target=4.0, start=1.0).alpha
    2.0
    """
    if not target > 0:
        raise ArgumentError(
            f"The strength to match is {target}, and must be above 0: MATA has no effect here."
        )
    tried: list[tuple[float, float]] = []
    low, high = -math.inf, math.log(LARGEST)  # in log alpha: too weak, too strong
    place, slope = math.log(start), 2.0
    while len(tried) < EVALUATIONS:
        alpha = float(f"{math.exp(place):.4g}")
        tried.append((alpha, strength(alpha)))
        gap = math.log(target) - math.log(max(tried[-1][1], 1e-300))
        if abs(gap) < math.log1p(TOLERANCE) or (gap > 0 and alpha >= LARGEST):
            break
        low, high = (place, high) if gap > 0 else (low, place)
        if len(tried) > 1:
            (a, s), (b, t) = tried[-2:]
            if a != b and s > 0 and t > 0:
                slope = min(4.0, max(0.25, (math.log(t) - math.log(s)) / (math.log(b) - math.log(a))))
        place = place + gap / slope
        if not low < place < high:
            place = (low + high) / 2 if low > -math.inf else high - 1.0
            place = min(place, math.log(LARGEST))
    alpha, reached = min(tried, key=lambda pair: abs(math.log(max(pair[1], 1e-300) / target)))
    return Match(alpha, reached, target, tuple(tried))
