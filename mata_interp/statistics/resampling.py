"""Sign-flip tests and the bootstrap-t interval of the mean, over independent units."""

from __future__ import annotations

import numpy as np

from .clusters import resampled_counts
from .simultaneous import FLOOR, mean_and_error
from .units import Units

__all__ = ["bootstrap_interval", "sign_flip", "sign_flip_counts"]

EXACT_UNITS = 16  # all 2^16 sign patterns take milliseconds
DRAWS = 20_000  # the standard error of p = 0.05 is then 0.0015
RESAMPLES = 9_999


def sign_flip_counts(sums: np.ndarray) -> float:
    """Exact two-sided sign-flip p-value of whole-number sums ``[G]``, for any number of units.

    If the change did nothing, each unit's sum could as well have had the other sign. The distribution
    of the total over all 2^G sign patterns is built up from the units of each size, of which a binomial
    number turn negative. Where every sum is -1, 0 or 1 this is the exact McNemar test.
    """
    sizes, units = np.unique(np.abs(np.rint(sums)).astype(int), return_counts=True)
    chance = np.ones(1)  # chance[k]: that the units which turn negative hold k in sum
    for size, count in zip(sizes[sizes > 0], units[sizes > 0], strict=True):
        binomial = np.zeros(count + 1)
        binomial[0] = 1.0
        for _ in range(count):  # halves are exact, where a formula for the binomial would round
            binomial[1:] = (binomial[1:] + binomial[:-1]) / 2
            binomial[0] /= 2
        turned = np.zeros(size * count + 1)
        turned[::size] = binomial
        chance = np.convolve(chance, turned)
    whole = len(chance) - 1
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


def bootstrap_interval(units: Units, level: float, seed: int) -> tuple[float, float]:
    """Symmetric bootstrap-t interval of the mean over items, drawing whole units.

    The mean -+ q standard errors, where q is the quantile of |mean* - mean| / error* over 9,999 resamples
    (Hall 1988, J R Stat Soc B 50:35). error* is at least a quarter of the sample's standard error, as in
    `simultaneous_band`. The units must not all be alike.
    """
    scale = np.abs(units.sums).max()  # squares of very small differences would vanish
    sums, sizes = units.sums[:, None] / scale, units.sizes.astype(float)
    mean, error = mean_and_error(np.ones((1, len(units))), sums, sizes)
    apart = []
    for counts in resampled_counts(len(units), RESAMPLES, seed):
        means, errors = mean_and_error(counts, sums, sizes)
        apart.append(np.abs(means - mean) / np.maximum(errors, FLOOR * error))
    radius = float(np.quantile(np.concatenate(apart), level)) * float(error[0, 0])
    return float((mean[0, 0] - radius) * scale), float((mean[0, 0] + radius) * scale)
