"""Intervals of a mean over clips for many data sets at once: t, and the bootstraps that compete with it.

The same formulas as in `mata_interp.statistics`, with resamples shared by the data sets of a block:
they are then matrix products. `tests/analyses/test_calibration.py` compares them with the package and scipy.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import t as student

from mata_interp.statistics.units import Units

__all__ = [
    "FLOOR",
    "bootstrap_intervals",
    "exact_flip_p",
    "freedom",
    "mean_and_plain_se",
    "mean_and_se",
    "plain_t_interval",
    "sign_flip_p",
    "t_interval",
]

FLOOR = 0.25  # of a resample's standard error, as in `simultaneous_band`
Interval = tuple[np.ndarray, np.ndarray]


def mean_and_se(sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over items and its cluster-robust standard error (CR2), ``[R]`` each, from sums ``[R, G]``."""
    total = sizes.sum()
    mean = sums.sum(1) / total
    u = sums - mean[:, None] * sizes
    return mean, np.sqrt((u**2) @ (1 / (1 - sizes / total))) / total


def t_interval(sums: np.ndarray, sizes: np.ndarray, level: float = 0.95) -> Interval:
    """Mean -+ t x standard error (CR2) with Satterthwaite's degrees of freedom, as in `paired_effect`."""
    mean, se = mean_and_se(sums, sizes)
    radius = student.ppf((1 + level) / 2, freedom(sizes)) * se
    return mean - radius, mean + radius


def freedom(sizes: np.ndarray) -> float:
    """Degrees of freedom of `mean_and_se` for clips of these sizes."""
    return Units(np.zeros(len(sizes)), sizes).freedom()


def plain_t_interval(sums: np.ndarray, sizes: np.ndarray, level: float = 0.95) -> Interval:
    """Mean -+ t x standard error (CR1) with clips - 1 degrees of freedom."""
    mean, se = mean_and_plain_se(sums, sizes)
    radius = student.ppf((1 + level) / 2, len(sizes) - 1) * se
    return mean - radius, mean + radius


def mean_and_plain_se(sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over items and its standard error without CR2's adjustment (CR1), ``[R]`` each."""
    total, clips = sizes.sum(), len(sizes)
    mean = sums.sum(1) / total
    u = sums - mean[:, None] * sizes
    return mean, np.sqrt(clips / (clips - 1) * np.einsum("rg,rg->r", u, u)) / total


def sign_flip_p(sums: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """p-values ``[R]`` of the sign-flip test of sums ``[R, G]``, the observed signs counted as one draw."""
    signs = 1.0 - 2.0 * rng.integers(0, 2, (draws, sums.shape[1]))
    bound = np.abs(sums.sum(1)) - 1e-12 * np.abs(sums).sum(1)
    return (1 + (np.abs(signs @ sums.T) >= bound).sum(0)) / (1 + draws)


def exact_flip_p(sums: np.ndarray) -> np.ndarray:
    """p-values ``[R]`` of the sign-flip test of sums ``[R, G]`` over all patterns, for up to 16 clips."""
    clips = sums.shape[1]
    signs = 1.0 - 2.0 * (np.arange(2 ** (clips - 1))[:, None] >> np.arange(clips) & 1)  # half, by symmetry
    bound = np.abs(sums.sum(1)) - 1e-12 * np.abs(sums).sum(1)
    return (np.abs(signs @ sums.T) >= bound).mean(0)


def bootstrap_intervals(
    sums: np.ndarray, sizes: np.ndarray, draws: int, rng: np.random.Generator, level: float = 0.95
) -> dict[str, Interval]:
    """Bootstrap intervals of the mean over items, clips resampled as a whole.

    - percentile: quantiles of the resampled means.
    - BCa: bias-corrected and accelerated (Efron 1987, JASA 82:171).
    - bootstrap-t: quantiles of (mean* - mean) / se* (Hall 1992); symmetric bootstrap-t (Hall 1988, J R Stat
      Soc B 50:35): of its size.
    - smoothed: percentile, with normal noise of Silverman's width (1986: 1.06 G^(-1/5) standard deviations of
      a clip's contribution) added to each resampled clip.

    Args:
        sums: sum of the changes of each clip, ``[R, G]``.
        sizes: number of items of each clip, ``[G]``.
        draws: number of resamples.
        rng: generator of the resamples.
        level: coverage.

    Returns:
        Name -> lower and upper ends, ``[R]`` each.
    """
    clips = len(sizes)
    counts = rng.multinomial(clips, np.full(clips, 1 / clips), draws).astype(float)  # (D, G)
    mean, se = mean_and_plain_se(sums, sizes)
    total = counts @ sizes  # (D,)
    means = (counts @ sums.T) / total[:, None]  # (D, R)
    squares = counts @ (sums**2).T - 2 * means * (counts @ (sums * sizes).T)
    squares += means**2 * (counts @ sizes.astype(float) ** 2)[:, None]
    errors = np.sqrt(np.maximum(squares, 0) * clips / (clips - 1)) / total[:, None]
    studentised = (means - mean) / np.maximum(errors, FLOOR * np.maximum(se, 1e-300))
    low_tail, high_tail = (1 - level) / 2, (1 + level) / 2
    lower, upper = np.quantile(studentised, [low_tail, high_tail], axis=0)
    radius = np.quantile(np.abs(studentised), level, axis=0) * se
    noise = 1.06 * clips**-0.2 * se * rng.standard_normal(means.shape)
    return {
        "percentile": tuple(np.quantile(means, [low_tail, high_tail], axis=0)),
        "BCa": _bca(means, mean, sums, sizes, level),
        "bootstrap-t": (mean - upper * se, mean - lower * se),
        "symmetric bootstrap-t": (mean - radius, mean + radius),
        "smoothed": tuple(np.quantile(means + noise, [low_tail, high_tail], axis=0)),
    }  # type: ignore[return-value]


def _bca(means: np.ndarray, mean: np.ndarray, sums: np.ndarray, sizes: np.ndarray, level: float) -> Interval:
    below = ((means < mean).mean(0) + (means <= mean).mean(0)) / 2
    bias = ndtri(below)
    jackknife = (sums.sum(1, keepdims=True) - sums) / (sizes.sum() - sizes)  # (R, G)
    apart = jackknife.mean(1, keepdims=True) - jackknife
    acceleration = (apart**3).sum(1) / np.maximum(6 * (apart**2).sum(1) ** 1.5, 1e-300)
    ordered, ends = np.sort(means, axis=0), []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + ndtri(tail)
        at = ndtr(bias + shifted / (1 - acceleration * shifted)) * (len(means) - 1)
        at = np.clip(np.nan_to_num(at), 0, len(means) - 1)
        before = np.minimum(at.astype(int), len(means) - 2)
        columns = np.arange(means.shape[1])
        step = ordered[before + 1, columns] - ordered[before, columns]
        ends.append(ordered[before, columns] + (at - before) * step)
    return ends[0], ends[1]
