"""Claims of no harm: equivalence and non-inferiority at a margin that was fixed beforehand.

"No significant difference" is no evidence of none. A change is *equivalent* to none within a margin if the
90 % interval lies inside the margin on both sides (two one-sided tests at 5 %: Schuirmann 1987, J
Pharmacokinet Biopharm 15:657), and *not inferior* if the interval lies above the negative margin.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import asdict, dataclass
from math import ceil, isnan, nan
from typing import Any, Literal

from numpy.typing import ArrayLike
from scipy.stats import norm, t

from ..errors import ArgumentError
from .choices import REFUSED, chosen_here
from .paired import paired_effect, paired_values
from .proportions import tango_score
from .units import Units

__all__ = ["NoHarm", "items_for_margin", "no_harm"]


@dataclass(frozen=True, kw_only=True)
class NoHarm:
    """Whether a change stays within a margin.

    Attributes:
        kind: "binary" or "margin".
        n: number of items.
        margin: the largest change that does not matter: a fraction (0.05 is 5 points), or nats.
        difference: mean change.
        low, high: its 90 % interval (two-sided; each end is a one-sided 95 % bound).
        p_inferior: p-value of the hypothesis that the change is -margin or worse.
        p_superior: p-value of the hypothesis that it is +margin or more.
        level: significance level of each one-sided test.
        method: how interval and tests were made.
    """

    kind: str
    n: int
    margin: float
    difference: float
    low: float
    high: float
    p_inferior: float
    p_superior: float
    level: float
    method: str

    @property
    def not_inferior(self) -> bool:
        """Whether harm of the size of the margin is excluded."""
        return self.p_inferior < self.level

    @property
    def equivalent(self) -> bool:
        """Whether a change of the size of the margin is excluded in both directions."""
        return self.p_equivalence < self.level

    @property
    def p_equivalence(self) -> float:
        """p-value of the two one-sided tests: the larger of the two."""
        return nan if isnan(self.p_inferior) else max(self.p_inferior, self.p_superior)

    def to_dict(self) -> dict[str, Any]:
        """The attributes and verdicts as plain data, None in place of NaN."""
        values = asdict(self) | {"not_inferior": self.not_inferior, "equivalent": self.equivalent}
        return {name: None if value != value else value for name, value in values.items()}


def no_harm(
    before: ArrayLike,
    after: ArrayLike,
    margin: float,
    kind: Literal["binary", "margin"] = "binary",
    clusters: Iterable | None = None,
    level: float = 0.05,
    chosen_on: Iterable[Hashable] = (),
) -> NoHarm:
    """Test equivalence and non-inferiority of the same items before and after a change.

    Binary values without clusters of several items: Tango's score test at -margin and +margin, and the
    interval that it inverts (Tango 1998, Stat Med 17:891). Else: t tests with the cluster-robust standard
    error (CR2) and Satterthwaite's degrees of freedom, clusters - 1 where these are of one size.

    Args:
        before, after: one value per item, in the same order, ``[n]``.
        margin: the largest change that does not matter, above 0; fixed before the data were seen.
        kind: "binary" or "margin".
        clusters: label of each item's cluster, ``[n]``.
        level: significance level of each one-sided test; the interval covers 1 - 2 level.
        chosen_on: labels of the clusters on which the change was chosen among others. If one of them is
            compared here, there are no p-values and no verdict is reached.

    Returns:
        The tests. Without a spread (or with fewer than two clusters) p-values and ends are NaN, and neither
        verdict is reached.

    Raises:
        ArgumentError: the margin is not above 0, or the values are unusable.

    >>> result = no_harm([1] * 95 + [0] * 105, [1] * 96 + [0] * 104, margin=0.05)
    >>> result.equivalent, result.not_inferior
    (True, True)
    """
    if not margin > 0:
        raise ArgumentError(f"margin is {margin}: it is the size of a change that does not matter, above 0.")
    labels = None if clusters is None else list(clusters)
    effect = paired_effect(before, after, kind, labels, level=1 - 2 * level)
    x, y = paired_values(before, after, kind)
    units = Units.gather(y - x, labels)
    if chosen_here(chosen_on, labels):
        p_inferior = p_superior = nan
        method = REFUSED
    elif kind == "binary" and len(units) == len(x) and len(x):
        below = tango_score(effect.fixed or 0, effect.broken or 0, len(x), -margin)
        above = tango_score(effect.fixed or 0, effect.broken or 0, len(x), margin)
        p_inferior, p_superior = float(norm.sf(below)), float(norm.cdf(above))
        method = "Tango score"
    elif len(units) > 1 and not units.alike:
        error, freedom = units.standard_error(), units.freedom()
        p_inferior = float(t.sf((units.mean + margin) / error, freedom))
        p_superior = float(t.cdf((units.mean - margin) / error, freedom))
        method = "cluster-robust t" if len(units) < len(x) else "Student t"
    else:
        p_inferior = p_superior = nan
        method = "none"
    return NoHarm(
        kind=kind, n=len(x), margin=margin, difference=effect.difference, low=effect.low, high=effect.high,
        p_inferior=p_inferior, p_superior=p_superior, level=level, method=method,
    )  # fmt: skip


def items_for_margin(
    discordance: float, margin: float, power: float = 0.8, level: float = 0.05, design_effect: float = 1.0
) -> int:
    """Number of items that an equivalence claim needs, if there is in truth no change.

    With no true change and a fraction d of items whose correctness changes, the difference has the standard
    error sqrt(d / n), and equivalence at +-m is shown with the wanted power if
    m >= (z(1 - level) + z((1 + power) / 2)) sqrt(d / n).

    Args:
        discordance: fraction of items whose correctness changes, 0 to 1.
        margin: the largest change that does not matter, as a fraction.
        power: wanted chance of showing equivalence.
        level: significance level of each one-sided test.
        design_effect: variance relative to independent items, from clusters.

    Raises:
        ArgumentError: an argument is out of range.

    >>> items_for_margin(discordance=0.1, margin=0.05)
    343
    """
    for name, value in {"discordance": discordance, "power": power, "level": level}.items():
        if not 0 < value < 1:
            raise ArgumentError(f"{name} is {value}: it must lie between 0 and 1.")
    if not margin > 0 or not design_effect > 0:
        raise ArgumentError("margin and design_effect must be above 0.")
    z = float(norm.ppf(1 - level) + norm.ppf((1 + power) / 2))
    return ceil(design_effect * discordance * (z / margin) ** 2)
