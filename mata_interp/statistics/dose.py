"""Dose and response: does a stronger edit do more, and do the items whose attention moved most gain most?

The second is an association. Items whose attention moves easily may differ in other ways, so it is no
evidence that attention mediates the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from ..errors import ArgumentError
from .clusters import cluster_codes, resampled_counts
from .resampling import sign_flip
from .units import Units

__all__ = ["RankAssociation", "rank_association", "trend_test"]

DRAWS = 9_999


def trend_test(responses: np.ndarray, clusters: Iterable | None = None, seed: int = 0) -> tuple[float, float]:
    """Does the response rise (or fall) with the dose?

    Each item's responses are contrasted with the equally spaced scores of the doses, which sum to 0; under no
    trend the sum of a cluster's contrasts could as well have had the other sign (sign-flip test).

    Args:
        responses: response of each item at each dose, in rising order and with dose 0 first, ``[n, doses]``.
        clusters: label of each item's cluster, ``[n]``.
        seed: seed of the sign patterns.

    Returns:
        The mean contrast (positive: the response rises) and the two-sided p-value.

    Raises:
        ArgumentError: there are fewer than two doses, or a response is not finite.

    >>> rising = np.array([[0.0, 1.0, 2.0]] * 8)
    >>> trend_test(rising)
    (1.0, 0.0078125)
    """
    values = np.asarray(responses, dtype=float)
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ArgumentError(f"responses is {values.shape}: it needs two doses or more, and finite numbers.")
    scores = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    contrasts = values @ scores / (scores @ scores)
    p, _ = sign_flip(Units.gather(contrasts, clusters).sums, seed)
    return float(contrasts.mean()), p


@dataclass(frozen=True, kw_only=True)
class RankAssociation:
    """Partial rank correlation of dose and gain.

    Attributes:
        n: number of items.
        rho: Spearman's correlation after the covariates' ranks are regressed out, -1 to 1.
        low, high: bootstrap interval over clusters.
        p: permutation p-value, two-sided.
        level: coverage of the interval.
    """

    n: int
    rho: float
    low: float
    high: float
    p: float
    level: float


def rank_association(
    dose: ArrayLike,
    gain: ArrayLike,
    covariates: Sequence[ArrayLike] = (),
    clusters: Iterable | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> RankAssociation:
    """Do the items with a larger dose gain more, among items that are alike in the covariates?

    Ranks of the covariates are regressed out of both ranks. For the test, the residual doses are permuted
    (Freedman and Lane 1983, J Bus Econ Stat 1:292), as whole clusters where these have equal sizes, else as
    clusters' signs of the product of residuals; the interval is a percentile bootstrap over clusters.

    Args:
        dose: for example, by how much the audio share rose, ``[n]``.
        gain: change of the margin, ``[n]``.
        covariates: for example, the margin before; each ``[n]``.
        clusters: label of each item's cluster, ``[n]``; None: each item is its own.
        seed: seed of permutations and bootstrap.
        level: coverage of the interval.

    Raises:
        ArgumentError: lengths differ, a value is not finite, or there are fewer than 4 items.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=60)
    >>> found = rank_association(x, x + rng.normal(size=60))
    >>> found.rho > 0.5, found.p < 0.01
    (True, True)
    """
    columns = [np.asarray(column, dtype=float) for column in (dose, gain, *covariates)]
    n = len(columns[0])
    if any(column.shape != (n,) for column in columns) or n < 4:
        raise ArgumentError("dose, gain and covariates need the same length, 4 items at least.")
    if not all(np.isfinite(column).all() for column in columns):
        raise ArgumentError("A value is not finite: leave items without one out of all columns.")
    codes, count = cluster_codes(range(n) if clusters is None else clusters)
    ranks = np.array([rankdata(column) for column in columns])
    x, y = _residuals(ranks)
    rho = _correlation(x, y)
    rng = np.random.default_rng(seed)
    p = _permutation_p(x, y, codes, count, rng)
    resampled = []
    members = [np.flatnonzero(codes == g) for g in range(count)]
    for counts in resampled_counts(count, 1000, seed):
        for row in counts:
            rows = np.concatenate([members[g] for g in np.repeat(np.arange(count), row)])
            again = np.array([rankdata(column[rows]) for column in columns])
            resampled.append(_correlation(*_residuals(again)))
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(resampled, [tail, 100 - tail]) if count > 1 else (np.nan, np.nan)
    return RankAssociation(n=n, rho=rho, low=float(low), high=float(high), p=p, level=level)


def _residuals(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the covariates' ranks leave of the first two rows of ranks [2 + c, n]."""
    design = np.vstack([np.ones(ranks.shape[1]), ranks[2:]]).T
    fitted = design @ np.linalg.lstsq(design, ranks[:2].T, rcond=None)[0]
    left = ranks[:2] - fitted.T
    return left[0], left[1]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 1e-12 else float("nan")


def _permutation_p(
    x: np.ndarray, y: np.ndarray, codes: np.ndarray, count: int, rng: np.random.Generator
) -> float:
    observed = abs(float(x @ y)) * (1 - 1e-12)
    sizes = np.bincount(codes, minlength=count)
    if (sizes == sizes[0]).all():  # whole clusters change places
        order = np.argsort(codes, kind="stable").reshape(count, -1)
        products = x[order] @ y[order].T  # (clusters, clusters)
        places = rng.permuted(np.tile(np.arange(count), (DRAWS, 1)), axis=1)
        totals = products[np.arange(count), places].sum(1)
    else:
        products = np.bincount(codes, weights=x * y, minlength=count)
        totals = rng.choice([-1.0, 1.0], (DRAWS, count)) @ products
    return (1 + int((np.abs(totals) >= observed).sum())) / (1 + DRAWS)
