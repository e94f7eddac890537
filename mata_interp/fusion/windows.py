"""From the profile of one criterion to its window: a set of layers, contiguous or not, possibly empty.

``parts`` and ``shares``: for a profile in which each layer has a part of a total (the effect of the audio on
the answer in nats; the sum of all saliency). The rule is that of `mata_interp.fusion.share_window`.

``deficit``: the run of layers with the largest sum of (mean over layers - efficiency), among layers that get
at least a tenth of what their size suggests; none if efficiency varies by less than a tenth of its mean.

``change``: up to three level segments fitted by least squares, their number by BIC (with the residual
variance set to at least a hundredth of the variance over layers); the window is the highest segment; none if
one segment fits best.

``marked``: the layers in which the profile is above one half.

Each rule is applied in the same way to every bootstrap resample of whole clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import numpy as np

from mata_interp.statistics import cluster_bootstrap_means

from .share_window import MIN_EFFECT, share_window

__all__ = ["DRAWS", "WINDOW_RULES", "Draws", "apply_window_rule", "draw_profiles", "overlap"]

DRAWS = 1000  # bootstrap resamples
MIN_EFFICIENCY = 0.1  # of what the size of the audio suggests
MIN_VARIATION = 0.1  # of the mean
MIN_RESIDUAL = 0.01  # of the variance over layers

Draws = tuple[np.ndarray, np.ndarray]
"""Means over items [n], and over the items of each resample [D, n]."""

Rule = Callable[[np.ndarray, Sequence[str], int], tuple[np.ndarray, np.ndarray]]


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


def apply_window_rule(
    rule: str, values: np.ndarray, clusters: Sequence[str], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The window, bool [n], by one of :data:`WINDOW_RULES`, and that of each resample, bool [D, n].

    Args:
        rule: its name.
        values: the profile, float64 [item, n]. Items with NaN are left out.
        clusters: cluster of each item.
        seed: seed of the resampling.

    >>> inside, _ = apply_window_rule("marked", np.array([[0.0, 1.0]]), ["a clip"])
    >>> inside.tolist()
    [False, True]
    """
    return WINDOW_RULES[rule](values, clusters, seed)


def overlap(a: Sequence[int], b: Sequence[int]) -> float:
    """Intersection over union of two windows; 1 if both are empty.

    >>> overlap([1, 2, 3], [2, 3, 4])
    0.5
    """
    either = {*a} | {*b}
    return len({*a} & {*b}) / len(either) if either else 1.0


def _parts(values: np.ndarray, clusters: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    window = share_window(values[None], clusters, MIN_EFFECT, seed)
    return window.inside, window.resampled


def _shares(values: np.ndarray, clusters: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    window = share_window(values[None], clusters, None, seed)
    return window.inside, window.resampled


def _of_means(rule: Callable[[np.ndarray], np.ndarray]) -> Rule:
    """A rule that looks at means over items [R, n] alone, in each row for itself."""

    def apply(values: np.ndarray, clusters: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
        mean, resampled = draw_profiles(values, clusters, DRAWS, seed)
        windows = rule(np.vstack([mean[None], resampled]))
        return windows[0], windows[1:]

    return apply


def _deficit(rows: np.ndarray) -> np.ndarray:
    return np.array([_longest_deficit(profile) for profile in rows])


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


def _change(rows: np.ndarray) -> np.ndarray:
    n = rows.shape[1]
    segmentations = [(0, *ends, n) for k in range(3) for ends in combinations(range(1, n), k)]
    floor = MIN_RESIDUAL * max(float(np.var(rows[0])), 1e-12)  # of the means over all items
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
    return inside


def _marked(rows: np.ndarray) -> np.ndarray:
    return rows > 0.5


WINDOW_RULES: dict[str, Rule] = {
    "parts": _parts,
    "shares": _shares,
    "deficit": _of_means(_deficit),
    "change": _of_means(_change),
    "marked": _of_means(_marked),
}
"""Name -> rule, a function of a profile [item, n], its clusters and a seed."""
