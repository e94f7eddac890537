"""From a profile over layers to a window: a set of layers, in one piece or several, or none.

The rules, fixed before any was tried on a model whose fusion layers are known:

``parts`` and ``shares``: of a profile whose layers each have a part in a whole (the effect of the sound on
the answer; all saliency). A layer is in the window if

1. its share of the whole, as a ratio of means over items, is at least half of what it would be if all layers
   had the same: 1 / (2 n) of n layers; and
2. that share is above the noise: the lower end of its 95 % bootstrap interval over clips is above 0.

Of ``parts``, which add up to an effect on the margin, there is no window unless that effect is real: its
interval is above 0 and it is 0.1 nats at least (odds changed by a tenth). Of ``shares``, where signs may
differ and nothing says what the sum should be, the whole is the sum of what is positive.

``deficit``: the run of layers with the largest sum of (mean over layers - efficiency), over those that get a
tenth of what their size suggests at least; none if efficiency varies by less than a tenth of its mean.

``change``: up to three level stretches fitted by least squares, their number by BIC (with the variance left
over taken to be a hundredth of that over layers at least); the highest; none if one stretch fits best.

``marked``: where the profile is above one half.

Every rule is applied in the same way to each bootstrap resample, with the noise of rule 2 held as it was
found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import numpy as np

__all__ = ["CUTS", "EFFECT", "Draws", "above_noise", "cut", "draw", "effect_is_real", "overlap"]

DRAWS = 1000
EFFECT = 0.1  # nats
READ = 0.1  # of what its size suggests
FLAT = 0.1  # of the mean
LEVEL = 0.01  # of the variance over layers: stretches are level up to so much

Draws = tuple[np.ndarray, np.ndarray]
"""Means over items [n], and over the items of each resample [D, n]."""


def draw(values: np.ndarray, clusters: Sequence[str], seed: int) -> Draws:
    """Means of [item, layer], and those of bootstrap resamples of whole clusters; items of NaN are left out.

    The same clusters and seed give the same resamples whatever the values. A single cluster has none: [0, n].
    """
    names, index = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    there = np.isfinite(values).all(1)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, index[there], values[there])
    sizes = np.bincount(index[there], minlength=len(names)).astype(float)
    if len(names) < 2:
        return sums.sum(0) / sizes.sum(), np.empty((0, values.shape[1]))
    even = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), even, size=DRAWS)
    return sums.sum(0) / sizes.sum(), (drawn @ sums) / np.maximum(drawn @ sizes, 1e-9)[:, None]


def effect_is_real(total: float, drawn: np.ndarray) -> bool:
    """Whether a mean effect, nats, and its resamples [D] show that there is one."""
    return total >= EFFECT and (len(drawn) == 0 or float(np.percentile(drawn, 2.5)) > 0)


def above_noise(share: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rules 1 and 2 on shares [n] and those of resamples [D, n]: bool [n] and bool [D, n]."""
    bar = np.full(len(share), 0.5 / len(share))
    if len(drawn):
        bar = np.maximum(bar, share - np.percentile(drawn, 2.5, axis=0))
    return share >= bar, drawn >= bar


def cut(kind: str, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """The window bool [n] by one of CUTS, and that of each resample, bool [D, n]."""
    return CUTS[kind](*draws)


def overlap(a: Sequence[int], b: Sequence[int]) -> float:
    """Intersection over union of two windows; 1 if both are empty."""
    return len({*a} & {*b}) / len(either) if (either := {*a} | {*b}) else 1.0


def _parts(mean: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not effect_is_real(mean.sum(), drawn.sum(1)):
        return np.zeros(mean.shape, bool), np.zeros(drawn.shape, bool)
    inside, each = above_noise(mean / mean.sum(), drawn / _positive(drawn.sum(1)))
    return inside, each


def _shares(mean: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wholes = [values.clip(0).sum(-1) for values in (mean, drawn)]
    if wholes[0] <= 0:
        return np.zeros(mean.shape, bool), np.zeros(drawn.shape, bool)
    return above_noise(mean / wholes[0], drawn / _positive(wholes[1]))


def _positive(total: np.ndarray) -> np.ndarray:
    """Totals to divide by; of a resample without any effect no share is left."""
    return np.where(total > 0, total, np.inf)[:, None]


def _deficit(mean: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def one(profile: np.ndarray) -> np.ndarray:
        inside = np.zeros(len(profile), bool)
        if np.ptp(profile) < FLAT * profile.mean():
            return inside
        gain = np.where(profile >= READ, profile.mean() - profile, -1e9)
        sums = np.concatenate([[0.0], np.cumsum(gain)])
        n = len(profile)
        first, last = max(
            ((i, j) for i in range(n) for j in range(i + 1, n + 1)), key=lambda ij: sums[ij[1]] - sums[ij[0]]
        )
        inside[first:last] = sums[last] - sums[first] > 0
        return inside

    return one(mean), np.array([one(profile) for profile in drawn]).reshape(drawn.shape)


def _change(mean: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(mean)
    pieces = [(0, *ends, n) for k in range(3) for ends in combinations(range(1, n), k)]
    floor = LEVEL * max(float(np.var(mean)), 1e-12)
    rows = np.vstack([mean[None], drawn])
    sums = np.pad(np.cumsum(rows, 1), ((0, 0), (1, 0)))
    squares = (rows**2).sum(1)
    best, kept = np.full(len(rows), np.inf), np.zeros(len(rows), int)
    for number, ends in enumerate(pieces):
        fitted = sum((sums[:, b] - sums[:, a]) ** 2 / (b - a) for a, b in pairwise(ends))
        bic = n * np.log(np.maximum((squares - fitted) / n, floor)) + (2 * len(ends) - 3) * np.log(n)
        kept, best = np.where(bic < best, number, kept), np.minimum(bic, best)
    inside = np.zeros(rows.shape, bool)
    for row, number in enumerate(kept):
        ends = pieces[number]
        spans = list(pairwise(ends))
        if len(spans) > 1:
            a, b = max(spans, key=lambda ab: rows[row, ab[0] : ab[1]].mean())
            inside[row, a:b] = True
    return inside[0], inside[1:]


def _marked(mean: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mean > 0.5, drawn > 0.5


CUTS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "parts": _parts,
    "shares": _shares,
    "deficit": _deficit,
    "change": _change,
    "marked": _marked,
}
"""Name -> rule."""
