"""One change over several strata (tasks, domains, difficulties): each with its interval, combined, and how
much they differ."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from math import nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2, norm

from ..errors import ArgumentError
from .effect import Effect
from .paired import paired_effect, paired_values
from .units import Units

__all__ = ["StratifiedEffect", "stratified_effect"]


@dataclass(frozen=True, eq=False, kw_only=True)
class StratifiedEffect:
    """A change within each stratum, and over all of them.

    Attributes:
        strata: stratum -> its `Effect`, in sorted order.
        difference: mean of the strata's changes, weighted by their numbers of items: the change over all
            items.
        low, high: its interval, from the strata's own standard errors.
        q, q_p: Cochran's Q for differences between strata and its p-value (chi-squared, strata - 1 degrees of
            freedom); NaN with fewer than two strata that have a standard error.
        i_squared: fraction of the variation between strata that is not explained by chance (Higgins and
            Thompson 2002, Stat Med 21:1539), 0 to 1.
        level: coverage of the intervals.
    """

    strata: dict[Hashable, Effect]
    difference: float
    low: float
    high: float
    q: float
    q_p: float
    i_squared: float
    level: float

    def __repr__(self) -> str:
        return (
            f"<StratifiedEffect of {len(self.strata)} strata: {self.difference:+.3f}, Q p = {self.q_p:.2g}>"
        )


def stratified_effect(
    before: ArrayLike,
    after: ArrayLike,
    strata: Iterable[Hashable],
    kind: Literal["binary", "margin"] = "binary",
    clusters: Iterable | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> StratifiedEffect:
    """Compare the same items before and after a change, within strata and over them.

    Args:
        before, after, kind, clusters, seed, level: as in `paired_effect`. A cluster that reaches into several
            strata is taken for several.
        strata: stratum of each item, ``[n]``.

    Raises:
        ArgumentError: as in `paired_effect`, or ``strata`` has another length.

    Examples:
        >>> from mata_interp.statistics import stratified_effect
        >>> tasks = ["speech", "speech", "music", "music"]
        >>> found = stratified_effect([0, 0, 1, 1] * 5, [1, 0, 1, 1] * 5, tasks * 5)
        >>> {name: effect.difference for name, effect in found.strata.items()}
        {'music': 0.0, 'speech': 0.5}
    """
    x, y = paired_values(before, after, kind)
    names = np.empty(len(x), dtype=object)
    labels = list(strata)
    if len(labels) != len(x):
        raise ArgumentError(f"strata names {len(labels)} items, but there are {len(x)}.")
    names[:] = labels
    groups = None if clusters is None else np.array([str(label) for label in clusters], dtype=object)
    effects: dict[Hashable, Effect] = {}
    errors: list[float] = []
    for name in sorted(set(labels), key=str):
        inside = names == name
        mine = None if groups is None else groups[inside].tolist()
        effects[name] = paired_effect(x[inside], y[inside], kind, mine, seed, level)
        units = Units.gather((y - x)[inside], mine)
        errors.append(nan if units.alike else units.standard_error())
    weights = np.array([effect.n for effect in effects.values()], dtype=float)
    changes, se = np.array([effect.difference for effect in effects.values()]), np.array(errors)
    total = float(weights @ changes / weights.sum()) if len(weights) else nan
    spread = sqrt(float(weights**2 @ np.nan_to_num(se) ** 2)) / weights.sum() if len(weights) else nan
    z = float(norm.ppf((1 + level) / 2))
    known = np.isfinite(se).all() and len(se) > 0
    q, q_p, i_squared = _heterogeneity(changes[np.isfinite(se)], se[np.isfinite(se)])
    return StratifiedEffect(
        strata=effects,
        difference=total,
        low=total - z * spread if known else nan,
        high=total + z * spread if known else nan,
        q=q,
        q_p=q_p,
        i_squared=i_squared,
        level=level,
    )


def _heterogeneity(changes: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """Cochran's Q, its p-value and I squared."""
    freedom = len(changes) - 1
    if freedom < 1:
        return nan, nan, nan
    weights = 1 / errors**2
    q = float(weights @ (changes - weights @ changes / weights.sum()) ** 2)
    return q, float(chi2.sf(q, freedom)), max(0.0, 1 - freedom / q) if q > 0 else 0.0
