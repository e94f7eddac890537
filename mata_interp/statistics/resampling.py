"""Sign-flip tests and the BCa bootstrap of the mean, over independent units."""

from __future__ import annotations

import numpy as np
from scipy.stats import bootstrap

from .units import Units

__all__ = ["bca_interval", "sign_flip", "sign_flip_counts"]

EXACT_UNITS = 16  # all 2^16 sign patterns take milliseconds
DRAWS = 20_000  # the standard error of p = 0.05 is then 0.0015
RESAMPLES = 9_999


def sign_flip_counts(sums: np.ndarray) -> float:
    """Exact two-sided sign-flip p-value of whole-number sums ``[G]``, for any number of units.

    If the change did nothing, each unit's sum could as well have had the other sign. The distribution
    of the total over all 2^G sign patterns is built up unit by unit. Where every sum is -1, 0 or 1
    this is the exact McNemar test.
    """
    sizes = np.abs(np.rint(sums)).astype(int)
    sizes = sizes[sizes > 0]
    whole = int(sizes.sum())
    chance = np.ones(1)  # chance[k]: that the units which turn negative hold k in sum
    for size in sizes:
        stay, turn = np.pad(chance, (0, size)), np.pad(chance, (size, 0))
        chance = (stay + turn) / 2
    totals = whole - 2 * np.arange(whole + 1)
    return float(min(1.0, chance[np.abs(totals) >= abs(int(np.rint(sums.sum())))].sum()))


def sign_flip(sums: np.ndarray, seed: int, draws: int = DRAWS) -> tuple[float, bool]:
    """Two-sided sign-flip p-value of any sums ``[G]``, and whether it is exact.

    All sign patterns are counted up to 16 units that are not zero; beyond that 20,000 seeded ones,
    the observed pattern counted among them, so that p is valid and never 0 (Phipson & Smyth 2010,
    Stat Appl Genet Mol Biol 9:39).
    """
    sizes = np.sort(np.abs(sums[sums != 0]))  # zeros have no sign; the signs observed do not matter
    whole = sizes.sum()
    bound = abs(sums.sum()) - 1e-12 * whole  # a tie is a tie whatever the order of summation
    exact = len(sizes) <= EXACT_UNITS
    if exact:
        negative = np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes)) & 1
        return float(np.mean(np.abs(whole - 2 * (negative @ sizes)) >= bound)), exact
    rng = np.random.default_rng(seed)
    as_far, rows = 0, max(1, 2_000_000 // len(sizes))
    for start in range(0, draws, rows):
        shape = (min(rows, draws - start), len(sizes))
        negative = rng.integers(0, 2, shape, dtype=np.uint8)
        as_far += int(np.sum(np.abs(whole - 2 * (negative @ sizes)) >= bound))
    return (1 + as_far) / (1 + draws), exact


def bca_interval(units: Units, level: float, seed: int) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap of the mean over items, drawing whole units.

    Efron (1987, JASA 82:171) with 9,999 seeded resamples. The units must not all be alike.
    """
    scale = np.abs(units.sums).max()  # third powers of very small differences would vanish
    interval = bootstrap(
        (units.sums / scale, units.sizes),
        lambda sums, sizes, axis: sums.sum(axis) / sizes.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=200,
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low * scale), float(interval.high * scale)
