"""From a profile over layers to a window: a set of layers, contiguous or not, possibly empty.

The rules were fixed before any of them was tried on a model whose fusion layers are known:

``parts`` and ``shares``: for a profile in which each layer has a part of a total (the effect of the audio on
the answer; the sum of all saliency). A layer is in the window if

1. its share of the total, as a ratio of means over items, is at least half of an equal share: 1 / (2 n) for n
   layers; and
2. that share is above the noise: the lower end of its 95 % bootstrap interval over clips is above 0.

The ``parts`` add up to an effect on the margin. There is no window unless that effect is real: its interval
lies above 0 and it is at least 0.1 nats (a change of the odds by a tenth). Of ``shares``, whose signs may
differ and whose sum has no meaning of its own, the total is the sum of the positive ones.

``deficit``: the run of layers with the largest sum of (mean over layers - efficiency), among layers that get
at least a tenth of what their size suggests; none if efficiency varies by less than a tenth of its mean.

``change``: up to three level segments fitted by least squares, their number by BIC (with the residual
variance set to at least a hundredth of the variance over layers); the window is the highest segment; none if
one segment fits best.

``marked``: the layers in which the profile is above one half.

Each rule is applied in the same way to every bootstrap resample, with the noise of rule 2 held fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import numpy as np

from mata_interp.statistics import cluster_bootstrap_means

__all__ = [
    "DRAWS",
    "MIN_EFFECT",
    "WINDOW_RULES",
    "Draws",
    "above_noise",
    "apply_window_rule",
    "draw_profiles",
    "effect_is_real",
    "overlap",
]

DRAWS = 1000  # bootstrap resamples
MIN_EFFECT = 0.1  # nats
MIN_EFFICIENCY = 0.1  # of what the size of the audio suggests
MIN_VARIATION = 0.1  # of the mean
MIN_RESIDUAL = 0.01  # of the variance over layers

Draws = tuple[np.ndarray, np.ndarray]
"""Means over items [n], and over the items of each resample [D, n]."""


def draw_profiles(values: np.ndarray, clusters: Sequence[str], draws: int, seed: int) -> Draws:
    """Means over items, and those of bootstrap resamples of whole clusters.

    Equal clusters and seeds give equal resamples, whatever the values.

    Args:
        values: [item, column]. Items with NaN are left out.
        clusters: cluster of each item.
        draws: number of resamples D.
        seed: seed of the resampling.

    Returns:
        The means [n], and the means of each resample [D, n]; [0, n] if there is only one cluster.
    """
    complete = np.isfinite(values).all(1, keepdims=True)
    mean, resampled = cluster_bootstrap_means(np.where(complete, values, np.nan), clusters, draws, seed)
    if len(set(map(str, clusters))) < 2:
        return mean, np.empty((0, values.shape[1]))
    return mean, np.nan_to_num(resampled)


def effect_is_real(total: float, resampled: np.ndarray) -> bool:
    """Whether a mean effect is at least 0.1 nats with a bootstrap interval above 0.

    Args:
        total: the mean effect, nats.
        resampled: the effect of each resample, [D]; empty if there are none.

    >>> effect_is_real(0.05, np.empty(0))
    False
    """
    return total >= MIN_EFFECT and (len(resampled) == 0 or float(np.percentile(resampled, 2.5)) > 0)


def above_noise(share: np.ndarray, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rules 1 and 2 on shares [n] and on those of resamples [D, n]: bool [n] and bool [D, n]."""
    threshold = np.full(len(share), 0.5 / len(share))
    if len(resampled):
        threshold = np.maximum(threshold, share - np.percentile(resampled, 2.5, axis=0))
    return share >= threshold, resampled >= threshold


def apply_window_rule(rule: str, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """The window, bool [n], by one of :data:`WINDOW_RULES`, and that of each resample, bool [D, n].

    >>> inside, _ = apply_window_rule("marked", (np.array([0.0, 1.0]), np.empty((0, 2))))
    >>> inside.tolist()
    [False, True]
    """
    return WINDOW_RULES[rule](*draws)


def overlap(a: Sequence[int], b: Sequence[int]) -> float:
    """Intersection over union of two windows; 1 if both are empty.

    >>> overlap([1, 2, 3], [2, 3, 4])
    0.5
    """
    either = {*a} | {*b}
    return len({*a} & {*b}) / len(either) if either else 1.0


def _parts(mean: np.ndarray, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not effect_is_real(mean.sum(), resampled.sum(1)):
        return np.zeros(mean.shape, bool), np.zeros(resampled.shape, bool)
    return above_noise(mean / mean.sum(), resampled / _divisor(resampled.sum(1)))


def _shares(mean: np.ndarray, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total, totals = mean.clip(0).sum(-1), resampled.clip(0).sum(-1)
    if total <= 0:
        return np.zeros(mean.shape, bool), np.zeros(resampled.shape, bool)
    return above_noise(mean / total, resampled / _divisor(totals))


def _divisor(total: np.ndarray) -> np.ndarray:
    """Totals to divide by; infinite, so that shares are 0, in a resample without any effect."""
    return np.where(total > 0, total, np.inf)[:, None]


def _deficit(mean: np.ndarray, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    windows = np.array([_longest_deficit(profile) for profile in resampled]).reshape(resampled.shape)
    return _longest_deficit(mean), windows


def _longest_deficit(profile: np.ndarray) -> np.ndarray:
    """The run of layers furthest below the mean, in sum: bool [n]."""
    n = len(profile)
    inside = np.zeros(n, bool)
    if np.ptp(profile) < MIN_VARIATION * profile.mean():
        return inside
    gain = np.where(profile >= MIN_EFFICIENCY, profile.mean() - profile, -1e9)
    sums = np.concatenate([[0.0], np.cumsum(gain)])
    spans = ((i, j) for i in range(n) for j in range(i + 1, n + 1))
    first, last = max(spans, key=lambda span: sums[span[1]] - sums[span[0]])
    inside[first:last] = sums[last] - sums[first] > 0
    return inside


def _change(mean: np.ndarray, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(mean)
    segmentations = [(0, *ends, n) for k in range(3) for ends in combinations(range(1, n), k)]
    floor = MIN_RESIDUAL * max(float(np.var(mean)), 1e-12)
    rows = np.vstack([mean[None], resampled])
    sums = np.pad(np.cumsum(rows, 1), ((0, 0), (1, 0)))
    squares = (rows**2).sum(1)
    best, chosen = np.full(len(rows), np.inf), np.zeros(len(rows), int)
    for number, ends in enumerate(segmentations):
        fitted = sum((sums[:, b] - sums[:, a]) ** 2 / (b - a) for a, b in pairwise(ends))
        bic = n * np.log(np.maximum((squares - fitted) / n, floor)) + (2 * len(ends) - 3) * np.log(n)
        chosen, best = np.where(bic < best, number, chosen), np.minimum(bic, best)
    inside = np.zeros(rows.shape, bool)
    for row, number in enumerate(chosen):
        spans = list(pairwise(segmentations[number]))
        if len(spans) > 1:
            heights = [rows[row, a:b].mean() for a, b in spans]
            a, b = spans[int(np.argmax(heights))]
            inside[row, a:b] = True
    return inside[0], inside[1:]


def _marked(mean: np.ndarray, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mean > 0.5, resampled > 0.5


WINDOW_RULES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "parts": _parts,
    "shares": _shares,
    "deficit": _deficit,
    "change": _change,
    "marked": _marked,
}
"""Name -> rule, a function of the means [n] and those of resamples [D, n]."""
