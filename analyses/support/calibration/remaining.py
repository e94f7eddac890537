"""Strata, trend, association and power: the remaining procedures of the package."""

from __future__ import annotations

import numpy as np

from mata_interp.statistics import (
    detectable_difference,
    items_needed,
    mcnemar_mid,
    paired_power,
    rank_association,
    stratified_effect,
    tango_interval,
    trend_test,
)
from mata_interp.statistics.dose import permutation_test
from mata_interp.statistics.strata import combined, heterogeneity

from .bootstraps import exact_flip_p, sign_flip_p
from .rows import Row, row
from .worlds import SHAPES, clip_labels, clip_sizes, clip_sums, shared_blocks

__all__ = ["association", "power", "strata", "trend"]

CHECKED = 10  # replicates of each cell that are compared with the package's own functions
FLIPS = 1999  # sign patterns of a trend test; the package uses 20,000
PERMUTATIONS = 999  # of an association; the package uses 9,999
BOOTSTRAPS = 1000  # replicates of the interval of an association
RANKS = "the ranks of a skewed covariate do not take out all of it, so that a small association is left"
EXACT = 12  # clips up to which all sign patterns are counted


def strata(
    cell: str, replicates: int, rng: np.random.Generator, *, sizes: tuple[int, ...], discordance: float
) -> list[Row]:
    """Coverage of the combined change of `stratified_effect`, and type I error of its test of heterogeneity.

    Args:
        cell, replicates, rng: as in `answers`.
        sizes: number of items of each stratum.
        discordance: fraction of items whose answer changes, half of them to the better, in every stratum.
    """
    n = np.array(sizes, dtype=float)
    changed = np.stack([rng.binomial(size, discordance, replicates) for size in sizes], 1)
    fixed = rng.binomial(changed, 0.5)
    low, high, p = strata_results(fixed, changed - fixed, n)
    for r in range(min(CHECKED, replicates)):
        before, after, names = _items(fixed[r], changed[r] - fixed[r], sizes)
        reference = stratified_effect(before, after, names)
        expected = reference.low, reference.high, reference.q_p
        np.testing.assert_allclose([low[r], high[r], p[r]], expected, atol=1e-9)
    differs = np.where(np.isnan(p), np.nan, p <= 0.05)
    return [
        row(cell, "stratified_effect, combined", "coverage", (low <= 0) & (high >= 0)),
        row(cell, "stratified_effect, heterogeneity", "type I error", differs),
    ]


def strata_results(
    fixed: np.ndarray, broken: np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends of the combined interval and p-value of heterogeneity, ``[R]`` each.

    Args:
        fixed, broken: counts of each stratum, ``[R, k]``.
        n: numbers of items, ``[k]``.
    """
    net, changed = fixed - broken, fixed + broken
    squares = changed - net**2 / n
    errors = np.where(squares > 1e-9, np.sqrt(np.maximum(squares, 1e-300) / (n * (n - 1))), np.nan)
    freedoms = np.broadcast_to(n - 1, errors.shape)
    total, radius = combined(net / n, errors, freedoms, n, 0.95)
    low, high = total - radius, total + radius
    for r in np.flatnonzero(np.isnan(radius)):  # a stratum without a spread: all items together
        low[r], high[r] = tango_interval(float(fixed[r].sum()), float(broken[r].sum()), float(n.sum()))
    return low, high, heterogeneity(net / n, errors, freedoms)[1]


def _items(
    fixed: np.ndarray, broken: np.ndarray, sizes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Answers before and after, and the stratum of each item, with these counts."""
    cells = zip(fixed, broken, sizes, strict=True)
    change = np.concatenate([np.r_[np.ones(f), -np.ones(b), np.zeros(n - f - b)] for f, b, n in cells])
    before = (change < 0).astype(float)
    return before, before + change, np.repeat(np.arange(len(sizes)), sizes).tolist()


def trend(
    cell: str, replicates: int, rng: np.random.Generator, *, clips: int, items: tuple[int, int], rise: float
) -> list[Row]:
    """Rejections of `trend_test` over six doses, which rise by ``rise`` standard deviations each.

    Args:
        cell, replicates, rng: as in `answers`.
        clips, items: as in `MarginWorld`.
        rise: true slope; 0 for type I error.
    """
    sizes = clip_sizes(clips, items, rng)
    labels = np.repeat(np.arange(clips), sizes)
    scores = np.arange(6) - 2.5
    p = []
    for seed, count in shared_blocks(replicates):
        responses = rng.normal(size=(count, len(labels), 6)) + rng.normal(size=(count, clips, 6))[:, labels]
        responses += rise * np.arange(6)
        sums = clip_sums(responses @ scores / (scores @ scores), sizes)
        p.append(exact_flip_p(sums) if clips <= EXACT else sign_flip_p(sums, FLIPS, rng))
        if seed == 0:
            _, reference = trend_test(responses[0], labels)
            np.testing.assert_allclose(p[0][0], reference, atol=1e-12 if clips <= EXACT else 0.05)
    return [row(cell, "trend_test", "power" if rise else "type I error", np.concatenate(p) <= 0.05)]


def association(
    cell: str,
    replicates: int,
    rng: np.random.Generator,
    *,
    clips: int,
    items: tuple[int, int],
    slope: float,
    shape: str = "normal",
) -> list[Row]:
    """Rejections of `rank_association` with a covariate that drives dose and gain, and its coverage of 0.

    Args:
        cell, replicates, rng: as in `answers`.
        clips, items, shape: as in `MarginWorld`.
        slope: of the gain on the dose; 0 for type I error.
    """
    sizes = clip_sizes(clips, items, rng)
    labels = np.repeat(np.arange(clips), sizes)
    draw = SHAPES[shape]
    rejected, covered = np.zeros(replicates, bool), np.full(replicates, np.nan)

    def noise() -> np.ndarray:
        return draw(rng, (len(labels),)) + draw(rng, (clips,))[labels]

    for replicate in range(replicates):
        covariate, dose = noise(), noise()
        gain = slope * dose + noise() + 0.5 * covariate
        columns = np.array([dose + 0.5 * covariate, gain, covariate])
        _, p, _ = permutation_test(columns, labels, clips, replicate, PERMUTATIONS)
        rejected[replicate] = p <= 0.05
        if replicate < (CHECKED if slope else BOOTSTRAPS):
            first, second, *others = columns
            result = rank_association(
                first, second, others, clip_labels(sizes), replicate, draws=PERMUTATIONS
            )
            np.testing.assert_allclose(p, result.p)
            covered[replicate] = result.low <= 0 <= result.high
    if slope:
        return [row(cell, "rank_association", "power", rejected)]
    return [
        row(cell, "rank_association", "type I error", rejected, RANKS if shape == "skewed" else ""),
        row(cell, "rank_association", "coverage", covered),
    ]


def power(
    cell: str, replicates: int, rng: np.random.Generator, *, items: int, discordance: float
) -> list[Row]:
    """Power of McNemar's mid-p at the change that `detectable_difference` names, and with `items_needed`.

    Args:
        cell, replicates, rng: as in `answers`.
        items: number of items.
        discordance: fraction of items whose answer changes.
    """
    change = detectable_difference(items, discordance)
    if np.isnan(change):
        return []
    rows = []
    for n, what in ((items, "detectable_difference"), (items_needed(change, discordance), "items_needed")):
        changed = rng.binomial(n, discordance, replicates)
        fixed = rng.binomial(changed, (1 + change / discordance) / 2)
        pairs, place = np.unique(np.stack([fixed, changed - fixed], 1), axis=0, return_inverse=True)
        p = np.array([mcnemar_mid(int(f), int(b)) for f, b in pairs])[place.ravel()]
        claimed = paired_power(n, discordance, change)
        rate = row(cell, f"{what}, mid-p", "power", p <= 0.05, f"claimed {100 * claimed:.1f} %")
        rows.append(Row(**{**rate.__dict__, "low": claimed - 0.005, "high": claimed + 0.005}))
    return rows
