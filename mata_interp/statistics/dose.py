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
from .max_t import sign_patterns
from .proportions import check_level
from .resampling import sign_flip
from .simultaneous import cluster_sums
from .units import Units

__all__ = ["RankAssociation", "SelectedTrend", "rank_association", "selected_trend", "trend_test"]

DRAWS = 9_999
RESAMPLES = 1_000
VARIES = 1e-9  # what the regression leaves of ranks that do not vary is rounding, smaller than this


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

    See Also:
        selected_trend: where the edit was chosen among others by these responses.

    >>> rising = np.array([[0.0, 1.0, 2.0]] * 8)
    >>> trend_test(rising)
    (1.0, 0.0078125)
    """
    values = np.asarray(responses, dtype=float)
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ArgumentError(f"responses is {values.shape}: it needs two doses or more, and finite numbers.")
    contrasts = values @ _slope_weights(values.shape[1])
    p, _ = sign_flip(Units.gather(contrasts, clusters).sums, seed)
    return float(contrasts.mean()), p


def _slope_weights(doses: int) -> np.ndarray:
    """Weights of the responses whose sum is the least-squares slope per dose step."""
    scores = np.arange(doses) - (doses - 1) / 2
    return scores / (scores @ scores)


@dataclass(frozen=True, kw_only=True)
class SelectedTrend:
    """The trend of the edit that was chosen among several by the same responses.

    Attributes:
        chosen: its number.
        slope: its mean rise from one dose to the next.
        p: p-value of the hypothesis that no edit changes anything, two-sided.
    """

    chosen: int
    slope: float
    p: float


def selected_trend(
    changes: np.ndarray, clusters: Iterable | None = None, draws: int = DRAWS, seed: int = 0
) -> SelectedTrend:
    """`trend_test` of the edit with the largest mean change at any dose, with the choice repeated.

    The best of many edits rises by chance alone on the items that it was chosen on. So the signs of whole
    clusters are flipped under all edits and doses at once, the edit is chosen again under each pattern of
    signs, and its slope is compared with the observed one: the p-value is that of the whole procedure. Up to
    13 clusters all patterns are counted, beyond that seeded ones with the observed pattern among them.

    Args:
        changes: change of each item from no edit, for each edit and dose, in rising order of the doses and
            without dose 0, ``[n, edits, doses]``.
        clusters: label of each item's cluster, ``[n]``; None: each item is its own.
        draws: number of sign patterns.
        seed: seed of the patterns.

    Raises:
        ArgumentError: the shapes do not fit, or a change is not finite.

    Examples:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).normal(size=(40, 3, 2))
        >>> trend = selected_trend(noise + np.array([[0.0, 0.0], [0.5, 1.0], [0.0, 0.0]]))
        >>> trend.chosen, trend.p < 0.01
        (1, True)
    """
    values = np.asarray(changes, dtype=float)
    if values.ndim != 3 or not values.size or not np.isfinite(values).all():
        raise ArgumentError(
            f"changes is {values.shape}: it needs items, edits and doses, and finite numbers."
        )
    codes, count = cluster_codes(range(len(values)) if clusters is None else clusters)
    if len(codes) != len(values):
        raise ArgumentError(f"clusters names {len(codes)} items, but there are {len(values)}.")
    doses = values.shape[2]
    sums, sizes = cluster_sums(values.reshape(len(values), -1), codes, count)
    slopes = sums.reshape(count, -1, doses) @ _slope_weights(doses + 1)[1:]  # (clusters, edits)

    def choose(signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The chosen edit and the sum of its slopes under each pattern."""
        edits = (signs @ sums).argmax(1) // doses
        return edits, (signs @ slopes)[np.arange(len(signs)), edits]

    chosen, observed = (float(each[0]) for each in choose(np.ones((1, count))))
    patterns, exact = sign_patterns(count, draws, seed, sums.shape[1])
    as_steep, done = 0, 0
    for signs in patterns:
        as_steep += int((np.abs(choose(signs)[1]) >= abs(observed) * (1 - 1e-12)).sum())
        done += len(signs)
    p = as_steep / done if exact else (1 + as_steep) / (1 + done)
    return SelectedTrend(chosen=int(chosen), slope=observed / float(sizes.sum()), p=p)


@dataclass(frozen=True, kw_only=True)
class RankAssociation:
    """Partial rank correlation of dose and gain.

    Attributes:
        n: number of items.
        rho: Spearman's correlation after the covariates' ranks are regressed out, -1 to 1.
        low, high: bootstrap interval over clusters.
        p: permutation p-value, two-sided.
        permuted_low, permuted_high: the range that holds ``level`` of the permuted correlations.
        level: coverage of the interval.
    """

    n: int
    rho: float
    low: float
    high: float
    p: float
    permuted_low: float
    permuted_high: float
    level: float


def rank_association(
    dose: ArrayLike,
    gain: ArrayLike,
    covariates: Sequence[ArrayLike] = (),
    clusters: Iterable | None = None,
    seed: int = 0,
    level: float = 0.95,
    draws: int = DRAWS,
) -> RankAssociation:
    """Do the items with a larger dose gain more, among items that are alike in the covariates?

    Ranks of the covariates are regressed out of both ranks. For the test, the residual doses are permuted and
    the correlation is computed again (Freedman and Lane 1983, J Bus Econ Stat 1:292), as whole clusters where
    these have equal sizes, else as clusters' signs of the product of residuals; the interval is a percentile
    bootstrap over clusters (1,000 resamples). A covariate whose effect is no straight line in ranks is not
    taken out whole.

    Args:
        dose: for example, by how much the audio share rose, ``[n]``.
        gain: change of the margin, ``[n]``.
        covariates: for example, the margin before; each ``[n]``.
        clusters: label of each item's cluster, ``[n]``; None: each item is its own.
        seed: seed of permutations and bootstrap.
        level: coverage of the interval.
        draws: number of permutations.

    Raises:
        ArgumentError: lengths differ, a value is not finite, or there are fewer than 4 items.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=60)
    >>> found = rank_association(x, x + rng.normal(size=60))
    >>> found.rho > 0.5, found.p < 0.01
    (True, True)
    """
    check_level(level)
    vectors = [np.asarray(column, dtype=float) for column in (dose, gain, *covariates)]
    n = len(vectors[0])
    if any(column.shape != (n,) for column in vectors) or n < 4:
        raise ArgumentError("dose, gain and covariates need the same length, 4 items at least.")
    columns = np.stack(vectors)
    if not np.isfinite(columns).all():
        raise ArgumentError("A value is not finite: leave items without one out of all columns.")
    codes, count = cluster_codes(range(n) if clusters is None else clusters)
    if len(codes) != n:
        raise ArgumentError(f"clusters names {len(codes)} items, but there are {n}.")
    tails = [(1 - level) / 2, (1 + level) / 2]
    rho, p, permuted = permutation_test(columns, codes, count, seed, draws)
    low, high = np.nan, np.nan
    if count > 1 and np.isfinite(rho):
        blocks = resampled_counts(count, RESAMPLES, seed, n)
        resampled = [_resampled_rho(columns, counts[:, codes]) for counts in blocks]
        low, high = np.nanquantile(np.concatenate(resampled), tails)
    return RankAssociation(
        n=n,
        rho=rho,
        low=float(low),
        high=float(high),
        p=p,
        permuted_low=float(np.quantile(permuted, tails[0])),
        permuted_high=float(np.quantile(permuted, tails[1])),
        level=level,
    )


def permutation_test(
    columns: np.ndarray, codes: np.ndarray, count: int, seed: int, draws: int
) -> tuple[float, float, np.ndarray]:
    """The correlation of `rank_association`, its p-value, and the permuted correlations ``[draws]``.

    Args:
        columns: dose, gain and covariates, ``[2 + c, n]``.
        codes, count: cluster of each item, from 0, ``[n]``, and the number of clusters.
        seed, draws: of the permutations.
    """
    ranks = np.array([rankdata(column) for column in columns])
    basis, _ = np.linalg.qr(
        np.vstack([np.ones(ranks.shape[1]), ranks[2:]]).T
    )  # of the covariates, (n, 1 + c)
    x, y = ranks[:2] - (ranks[:2] @ basis) @ basis.T
    size = float(np.sqrt((x @ x) * (y @ y)))
    if size <= VARIES:
        return float("nan"), 1.0, np.full(draws, np.nan)
    rho = float(x @ y) / size
    permuted = _permuted_rho(x, y, basis, codes, count, np.random.default_rng(seed), draws)
    p = (1 + int((np.abs(permuted) >= abs(rho) * (1 - 1e-12)).sum())) / (1 + draws)
    return rho, p, permuted


def _permuted_rho(
    x: np.ndarray,
    y: np.ndarray,
    basis: np.ndarray,
    codes: np.ndarray,
    count: int,
    rng: np.random.Generator,
    draws: int,
) -> np.ndarray:
    """Correlations of residuals under permutations ``[draws]``.

    A permuted residual dose is no longer free of the covariates, whose share is taken out of its size again,
    as a refit would (Freedman and Lane 1983). Signs of clusters are scaled for the coefficients that the
    residuals have been fitted by.

    Args:
        x, y: residual dose and gain, ``[n]``.
        basis: orthonormal columns that span the covariates and a constant, ``[n, 1 + c]``.
        codes, count: cluster of each item, and their number.
        rng: generator.
        draws: number of permutations.
    """
    sizes = np.bincount(codes, minlength=count)
    if (sizes != sizes[0]).any():
        products = np.bincount(codes, weights=x * y, minlength=count) / np.sqrt((x @ x) * (y @ y))
        spare = max(count - basis.shape[1], 1)
        return np.sqrt(count / spare) * ((1.0 - 2.0 * rng.integers(0, 2, (draws, count))) @ products)
    order = np.argsort(codes, kind="stable").reshape(count, -1)  # whole clusters change places
    places = rng.permuted(np.tile(np.arange(count), (draws, 1)), axis=1)

    def with_permuted_dose(column: np.ndarray) -> np.ndarray:
        """Sums of products of a column with each permuted dose, ``[draws]``."""
        products = column[order] @ x[order].T  # (clusters, clusters)
        return products[np.arange(count), places].sum(1)

    left = x @ x - sum(with_permuted_dose(column) ** 2 for column in basis.T)
    return with_permuted_dose(y) / np.sqrt(np.maximum(left, VARIES) * (y @ y))


def _resampled_rho(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Partial rank correlations ``[D]`` in samples that hold each item several times or not at all.

    Args:
        columns: dose, gain and covariates, ``[2 + c, n]``.
        weights: how often each sample holds each item, int ``[D, n]``.
    """
    ranks = np.stack([_ranks(column, weights) for column in columns])  # (2 + c, D, n)
    w = weights.astype(float)
    ranks -= ((ranks * w).sum(-1) / w.sum(-1))[..., None]
    x, y, others = ranks[0], ranks[1], np.moveaxis(ranks[2:], 0, 1)  # others: (D, c, n)
    weighted = others * w[:, None]
    inverse = np.linalg.pinv(weighted @ np.swapaxes(others, 1, 2), hermitian=True)  # (D, c, c)
    x, y = (side - np.einsum("dc,dcn->dn", _solve(inverse, weighted, side), others) for side in (x, y))
    product, size = (w * x * y).sum(-1), np.sqrt((w * x * x).sum(-1) * (w * y * y).sum(-1))
    return np.where(size > VARIES, product / np.where(size > VARIES, size, 1.0), np.nan)


def _solve(inverse: np.ndarray, weighted: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Coefficients ``[D, c]`` of the regression of ``side`` on the covariates."""
    return np.einsum("dce,de->dc", inverse, np.einsum("den,dn->de", weighted, side))


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks (the mean of equal ones) of the items in each sample, ``[D, n]``; of absent items: any number."""
    order = np.argsort(values, kind="stable")
    _, first, place = np.unique(values[order], return_index=True, return_inverse=True)
    held = np.add.reduceat(weights[:, order], first, axis=1)  # (D, different values)
    middle = np.cumsum(held, axis=1) - (held - 1) / 2
    ranks = np.empty(weights.shape)
    ranks[:, order] = middle[:, place]
    return ranks
