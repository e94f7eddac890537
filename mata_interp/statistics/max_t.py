"""Many comparisons on the same items: step-down max-T tests that flip or resample whole clusters.

Holm's correction takes the worst case of dependence. Configurations of a sweep are strongly correlated, and
max-T uses that: the largest studentised change over all configurations is compared with its distribution
when nothing has an effect (Westfall and Young 1993, Resampling-Based Multiple Testing, algorithm 4.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError
from .clusters import cluster_codes, resampled_counts
from .simultaneous import FLOOR, cluster_sums, mean_and_error

__all__ = [
    "MaxT",
    "adjusted_p",
    "flipped_t",
    "max_t",
    "resampled_t",
    "romano_wolf",
    "sign_patterns",
]

DRAWS = 9_999
EXACT_CLUSTERS = 13  # 2^13 sign patterns are fewer than the draws
_BLOCK = 2_000_000  # numbers in memory at once


@dataclass(frozen=True, eq=False, repr=False)
class MaxT:
    """Tests of many changes with control of the family-wise error rate.

    Attributes:
        change: mean change of each configuration, float64 ``[k]``.
        statistic: the studentised change, ``[k]``; 0 where nothing changed.
        p: adjusted two-sided p-values, ``[k]``. Rejecting those below 0.05 makes a false rejection among any
            of them with a chance of at most 5 %.
        method: how the null distribution was made.
        draws: number of sign patterns or resamples.

    Examples:
        >>> import numpy as np
        >>> from mata_interp.statistics import max_t
        >>> changes = np.random.default_rng(0).normal([0.0, 0.8], 1.0, (60, 2))
        >>> (max_t(changes).p < 0.05).tolist()
        [False, True]
    """

    change: np.ndarray
    statistic: np.ndarray
    p: np.ndarray
    method: str
    draws: int

    def __repr__(self) -> str:
        return f"<MaxT of {len(self.p)} changes, {self.method}, {self.draws:,} draws>"


def max_t(changes: np.ndarray, clusters: Iterable | None = None, draws: int = DRAWS, seed: int = 0) -> MaxT:
    """Step-down max-T test that flips the sign of whole clusters.

    If a configuration does nothing, each cluster's change could as well have had the other sign. One pattern
    of signs is applied to all configurations at once, which keeps their correlation. Up to 13 clusters, all
    patterns are counted; beyond that, seeded ones with the observed pattern among them, so that p is valid
    (Phipson and Smyth 2010, Stat Appl Genet Mol Biol 9:39).

    Changes whose mean is 0 but whose distribution is skewed are not symmetric, and the family-wise error is
    then up to 6 % for 5 % in simulations with 10 and 50 clusters (`analyses/calibration.md`): use
    `romano_wolf` there.

    Args:
        changes: after - before of each item under each configuration, float ``[n, k]``; differences of
            correctness (-1, 0, 1) or of margins.
        clusters: label of each item's cluster, ``[n]``; None: each item is its own.
        draws: number of sign patterns.
        seed: seed of the patterns.

    Raises:
        ArgumentError: the shapes do not fit, or a value is not finite.

    See Also:
        romano_wolf: the same by bootstrap, for changes whose distribution is not symmetric.
        holm: correction of p-values alone.
    """
    sums, sizes = _gathered(changes, clusters)
    groups = len(sizes)
    observed = flipped_t(np.ones((1, groups)), sums, sizes)[0]
    patterns, exact = sign_patterns(groups, draws, seed, sums.shape[1])
    blocks = (flipped_t(signs, sums, sizes) for signs in patterns)
    adjusted, count = adjusted_p(observed, blocks, counted=not exact)
    method = "sign-flip by cluster, " + ("exact" if exact else "drawn")
    change = sums.sum(0) / sizes.sum()
    return MaxT(change, np.copysign(observed, change), adjusted, method, count)


def romano_wolf(
    changes: np.ndarray, clusters: Iterable | None = None, draws: int = DRAWS, seed: int = 0
) -> MaxT:
    """Step-down max-T test by a studentised cluster bootstrap.

    Romano and Wolf (2005, Econometrica 73:1237). It needs no symmetry, which sign flips do, but holds only as
    the number of clusters grows: prefer `max_t` for paired changes, which are symmetric if nothing happens.

    Args:
        changes, clusters, draws, seed: as in `max_t`.

    Raises:
        ArgumentError: the shapes do not fit, or a value is not finite.

    Examples:
        >>> import numpy as np
        >>> changes = np.random.default_rng(0).normal([0.0, 0.8], 1.0, (60, 2))
        >>> (romano_wolf(changes).p < 0.05).tolist()
        [False, True]
    """
    sums, sizes = _gathered(changes, clusters)
    statistic, blocks = resampled_t(sums, sizes, draws, seed)
    adjusted, count = adjusted_p(np.abs(statistic), blocks, counted=True)
    return MaxT(sums.sum(0) / sizes.sum(), statistic, adjusted, "bootstrap by cluster", count)


def resampled_t(
    sums: np.ndarray, sizes: np.ndarray, draws: int, seed: int
) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Studentised means ``[k]``, and blocks ``[D, k]`` of the sizes of those of resamples about them.

    Args:
        sums: over each cluster's items, ``[G, k]``.
        sizes: number of items of each cluster, ``[G]``.
        draws, seed: as in `romano_wolf`.
    """
    mean, error = mean_and_error(np.ones((1, len(sizes))), sums, sizes)

    def blocks() -> Iterator[np.ndarray]:
        for counts in resampled_counts(len(sizes), draws, seed, sums.shape[1]):
            again, errors = mean_and_error(counts, sums, sizes)
            yield np.abs(_divide(again - mean, np.maximum(errors, FLOOR * error)))

    return _divide(mean, error)[0], blocks()


def _gathered(changes: np.ndarray, clusters: Iterable | None) -> tuple[np.ndarray, np.ndarray]:
    """Cluster sums [G, k] and sizes [G]."""
    values = np.asarray(changes, dtype=float)
    if values.ndim != 2 or not len(values):
        raise ArgumentError(
            f"changes is {values.shape}: it needs a row for each item and a column for each test."
        )
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ArgumentError(f"changes[{row}, {column}] is {values[row, column]}: leave incomplete items out.")
    labels = range(len(values)) if clusters is None else list(clusters)
    codes, count = cluster_codes(labels)
    if len(codes) != len(values):
        raise ArgumentError(f"clusters names {len(codes)} items, but there are {len(values)}.")
    return cluster_sums(values, codes, count)


def flipped_t(signs: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """|mean| / standard error (CR1) with the clusters' signs flipped: ``[D, k]`` from signs ``[D, G]``."""
    groups, total = len(sizes), sizes.sum()
    mean = signs @ sums / total
    squares = (sums**2).sum(0) - 2 * mean * (signs @ (sums * sizes[:, None])) + mean**2 * (sizes**2).sum()
    # what is left of a difference of equal numbers is rounding
    squares = np.where(squares > 1e-12 * (sums**2).sum(0), squares, 0.0)
    return np.abs(_divide(mean, np.sqrt(squares * groups / max(groups - 1, 1)) / total))


def _divide(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """mean / error; 0 where both are 0, infinite where the error alone is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(mean) < 1e-15, 0.0, mean / error)


def sign_patterns(groups: int, draws: int, seed: int, columns: int) -> tuple[Iterator[np.ndarray], bool]:
    """Blocks of sign patterns ``[D, groups]`` of 1 and -1, and whether they are all that there are.

    Args:
        groups: number of clusters; up to `EXACT_CLUSTERS`, all patterns are listed.
        draws: number of patterns that are drawn otherwise.
        seed: seed of these.
        columns: number of columns that the caller computes from each pattern; it limits a block's size.
    """
    exact = groups <= EXACT_CLUSTERS
    return (_all_signs(groups) if exact else _drawn_signs(groups, draws, seed, columns)), exact


def _all_signs(groups: int) -> Iterator[np.ndarray]:
    yield 1.0 - 2.0 * (np.arange(2**groups)[:, None] >> np.arange(groups) & 1)


def _drawn_signs(groups: int, draws: int, seed: int, columns: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // max(groups, columns))
    for start in range(0, draws, rows):
        yield 1.0 - 2.0 * rng.integers(0, 2, (min(rows, draws - start), groups))


def adjusted_p(observed: np.ndarray, blocks: Iterable[np.ndarray], counted: bool) -> tuple[np.ndarray, int]:
    """Step-down adjusted p-values ``[k]``, and the number of draws.

    Args:
        observed: |t| of each test, ``[k]``.
        blocks: |t| under the null hypothesis, each ``[D, k]``.
        counted: whether the observed value itself is one more draw.
    """
    order = np.argsort(-observed, kind="stable")
    bound = observed[order] * (1 - 1e-12)  # a tie is a tie whatever the order of summation
    as_large, draws = np.zeros(len(observed)), 0
    for block in blocks:
        largest = np.maximum.accumulate(block[:, order[::-1]], 1)[:, ::-1]  # over this test and weaker ones
        as_large += (largest >= bound).sum(0)
        draws += len(block)
    p = (as_large + counted) / (draws + counted)
    adjusted = np.empty(len(observed))
    adjusted[order] = np.maximum.accumulate(p)
    return adjusted.clip(0, 1), draws
