"""What a comparison could have detected, and what a planned one can."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from math import isnan, nan
from typing import Any, Literal

import numpy as np

from ..statistics import detectable_difference, detectable_margin, items_needed
from ..statistics.units import Units

__all__ = ["ASSUMED_DISCORDANCE", "POWER", "PlannedPower", "detectable_change", "plan_power"]

POWER = 0.8
ASSUMED_DISCORDANCE = 0.2  # the shipped study changes the correctness of 28 % of the conflict items
LARGE = 0.10  # a smallest detectable difference above this gets a warning


def detectable_change(
    before: np.ndarray, after: np.ndarray, kind: Literal["binary", "margin"], clusters: list
) -> float:
    """The smallest change that a comparison like this one detects with 80 % power, at the 5 % level.

    It follows from the number of items, from how many of them changed (binary) or how much their changes
    vary (margin), and from how alike the items of a cluster change. It does not depend on the mean change.

    Args:
        before, after: Values of the same items, ``[n]``.
        kind: ``"binary"`` for correct answers, ``"margin"`` for nats.
        clusters: The cluster of each item.

    Returns:
        A fraction, or nats. NaN if nothing changed, or if so few answers change that no difference is
        detected with this power.
    """
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if len(change) < 2 or not change.any():
        return nan
    inflation = _design_effect(change, clusters)
    if kind == "margin":
        spread = float(change.std(ddof=1))
        return detectable_margin(len(change), spread, POWER, design_effect=inflation) if spread > 0 else nan
    return detectable_difference(len(change), float((change != 0).mean()), POWER, design_effect=inflation)


def _design_effect(change: np.ndarray, clusters: list) -> float:
    """Variance of the mean change relative to that of independent items, at least 1."""
    grouped, single = Units.gather(change, clusters), Units.gather(change, None)
    if len(grouped) == len(single):
        return 1.0
    if grouped.alike or single.alike:
        return len(single) / len(grouped)
    return max(1.0, (grouped.standard_error() / single.standard_error()) ** 2)


@dataclass(frozen=True)
class PlannedPower:
    """What the primary comparison of a study that has not run can detect.

    Attributes:
        items, clips: Number of its items and of their recordings. Items count as independent here; where
            several are of one recording, the study detects less.
        discordance: Assumed fraction of items whose correctness changes.
        detectable: Smallest change of accuracy that is detected with 80 % power at the 5 % level, a fraction;
            NaN if no change is.
        needed: Number of items that detect a change of 10 points.
    """

    items: int
    clips: int
    discordance: float
    detectable: float
    needed: int

    @property
    def too_small(self) -> bool:
        """Whether a change of 10 points would be missed too often."""
        return isnan(self.detectable) or self.detectable > LARGE

    def to_dict(self) -> dict[str, Any]:
        """The attributes and `too_small` as plain data, None in place of NaN."""
        values = asdict(self) | {"too_small": self.too_small}
        return {name: None if value != value else value for name, value in values.items()}

    def __str__(self) -> str:
        assumed = f"if MATA changes the correctness of {100 * self.discordance:.0f} % of them"
        change = "no change of accuracy"
        if not isnan(self.detectable):
            change = f"a change of {100 * self.detectable:.1f} points"
        detected = f"{change} is detected with {100 * POWER:.0f} % power"
        warning = (
            f"\nWarning: these are too few items to detect a change of {100 * LARGE:.0f} points; that needs "
            f"about {self.needed:,}. A result of no difference would say little."
        )
        text = f"Power of the primary comparison: on {self.items:,} items, {assumed}, {detected}."
        return text + (warning if self.too_small else "")


def plan_power(items: int, clips: int, discordance: float = ASSUMED_DISCORDANCE) -> PlannedPower:
    """What a comparison of correct answers will be able to detect.

    Args:
        items, clips: Number of items and of their recordings.
        discordance: Assumed fraction of items whose correctness changes, from ``LARGE`` to 1.

    >>> plan_power(13, 13).too_small, plan_power(400, 400).too_small
    (True, False)
    """
    return PlannedPower(
        items,
        clips,
        discordance,
        detectable_difference(items, discordance, POWER),
        _needed(discordance),
    )


@cache
def _needed(discordance: float) -> int:
    """Number of items that detect a change of ``LARGE``."""
    return items_needed(LARGE, discordance, POWER)
