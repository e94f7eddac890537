"""The layers that carry the effect of the audio, with error control over layers.

From what each layer adds to the effect on each item, by one criterion or by the mean of several:

1. *Is there an effect?* Each criterion's whole effect, the sum over layers, has to be at least 0.1 nats, with
   a one-sided 97.5 % bootstrap-t bound above 0. If the effect is smaller, there is no window; if only the
   bound fails, there are too few clips. Criteria whose sum has no meaning of its own (slopes, masses) skip
   this step, and only their positive parts count.
2. *Which layers are worth an edit?* Those whose share is at least a fifth of the largest share.
3. *Neighbours are pooled before they are split.* Adjacent layers of step 2 form one run. A gap of one layer
   is filled, unless the layer's simultaneous upper bound shows that its share is less than that.
4. *Which runs stand out?* Those whose summed share has a lower bound above 0. The bounds hold simultaneously
   for all contiguous runs of layers (max-T over runs), so that the chance that any run without an effect is
   taken is 5 %, however many layers there are.
5. If no run stands out, there are too few clips, and the number needed is estimated from their noise. If more
   than four fifths of the layers are in the window, the audio is read everywhere, and there is no window.

Steps 2 to 5 are repeated in every resample of whole clips, with the critical values held fixed. The
*stability* of the window is the fraction of resamples whose window overlaps it by half (IoU >= 0.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mata_interp.ranges import runs
from mata_interp.statistics.clusters import cluster_codes, resampled_counts
from mata_interp.statistics.simultaneous import (
    MIN_CLUSTERS,
    cluster_sums,
    mean_and_error,
    simultaneous_band,
)

__all__ = ["MIN_EFFECT", "SPREAD", "WORTH", "ShareWindow", "nothing_measured", "share_window"]

MIN_EFFECT = 0.1  # nats: a change of the odds by a tenth
WORTH = 0.2  # of the largest share: a layer with less is not worth an edit
SPREAD = 0.8  # of the layers
AGREE = 0.5  # IoU
DRAWS = 1000
EFFECT_LEVEL = 0.975  # of the one-sided bound of each criterion's effect


@dataclass(frozen=True, eq=False)
class ShareWindow:
    """A window of layers and what it rests on.

    Attributes:
        inside: the window, bool [n].
        resampled: the window of each resample, bool [D, n]; [0, n] where there are too few clips to resample.
        share: share of each layer in the effect of the audio, mean over the deciding criteria, [n].
        low, high: ends of the simultaneous 95 % band of the shares, [n]; NaN with fewer than 6 clips.
        verdict: ``"found"``, ``"no effect"``, ``"spread"``, ``"too few clips"`` or ``"nothing measured"``.
        stability: fraction of resamples whose window overlaps this one by half (IoU >= 0.5); NaN without a
            window.
        clips: number of clips that decided.
        clips_needed: with ``"too few clips"``, about how many would be needed, if the effect is as large as
            it looks; None where it cannot be estimated.
    """

    inside: np.ndarray
    resampled: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    verdict: str
    stability: float = float("nan")
    clips: int = 0
    clips_needed: int | None = None

    @property
    def share_inside(self) -> float:
        """Share of the window, from 0 to 1: of all layers that add to the effect, those in the window."""
        positive = self.share.clip(0)
        return float(positive[self.inside].sum() / positive.sum()) if positive.sum() > 0 else 0.0


def nothing_measured(n: int) -> ShareWindow:
    """No window of ``n`` layers, for want of a measurement."""
    nan = np.full(n, np.nan)
    return ShareWindow(np.zeros(n, bool), np.zeros((0, n), bool), np.zeros(n), nan, nan, "nothing measured")


def share_window(
    parts: np.ndarray,
    clusters: Sequence[str],
    min_effect: float | None = MIN_EFFECT,
    seed: int = 0,
    resamples: int = DRAWS,
) -> ShareWindow:
    """The layers that carry the effect.

    Args:
        parts: what each layer adds to the effect, float64 [criterion, item, n]. Items with a NaN are left
            out.
        clusters: cluster (clip) of each item.
        min_effect: the smallest effect that counts, in the unit of ``parts``; None where the sum over layers
            has no meaning of its own: only positive parts count then.
        seed: seed of the bootstrap.
        resamples: number of resamples whose windows are found for the stability and the boundaries; 0 leaves
            both out.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> parts = rng.normal([0.0, 0.9, 1.1, 0.0], 0.5, (1, 40, 4))  # nats, in four layers
        >>> found = share_window(parts, [f"clip {i}" for i in range(40)])
        >>> found.inside.tolist(), found.verdict
        ([False, True, True, False], 'found')
    """
    complete = np.asarray(np.isfinite(parts).all(axis=(0, 2)))
    labels = [cluster for cluster, there in zip(clusters, complete, strict=True) if there]
    if not labels:
        return nothing_measured(parts.shape[2])
    parts = parts[:, complete] if min_effect is not None else parts[:, complete].clip(0)
    shares, whole = _shares(parts)
    empty = replace(nothing_measured(parts.shape[2]), share=shares.mean(0), clips=len(set(labels)))
    verdict, needed = _effect(whole, labels, seed, min_effect or 0.0)
    if verdict != "found":
        return replace(empty, verdict=verdict, clips_needed=needed)
    return _window_among(shares, labels, empty, seed, resamples)


def _shares(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each item says about the layers' shares [items, n], and each criterion's effect [items, criteria].

    A share is a ratio of means, T_l / T. Its influence function, T_l / T + (t_il - T_l / T t_i) / T, is a
    number for each item whose mean is the share and whose standard error is that of the ratio (delta method).
    """
    whole = parts.sum(2)  # (criteria, items)
    total = whole.mean(1)  # (criteria,)
    divisor = np.where(total > 0, total, np.inf)[:, None, None]
    ratio = parts.mean(1)[:, None] / divisor  # (criteria, 1, n)
    influence = ratio + (parts - ratio * whole[:, :, None]) / divisor
    return influence.mean(0), whole.T


def _effect(whole: np.ndarray, labels: Sequence[str], seed: int, bound: float) -> tuple[str, int | None]:
    """Step 1: "found", "no effect" or "too few clips", and about how many clips are needed."""
    clips, needed = len(set(labels)), []
    for effect in whole.T:
        band = simultaneous_band(effect[:, None], labels, 2 * EFFECT_LEVEL - 1, seed=seed)
        mean, error = float(band.mean[0]), float(band.se[0])
        if mean < bound or mean <= 0:
            return "no effect", None
        if not np.isfinite(band.critical) or mean - band.critical * error <= 0:
            needed.append(_clips_needed(clips, mean, error, band.critical))
    return ("too few clips", max(needed)) if needed else ("found", None)


def _clips_needed(clips: int, mean: float, error: float, critical: float) -> int:
    """Number of clips with which ``mean`` would be ``critical`` standard errors, at the same noise."""
    usual = critical if np.isfinite(critical) else 3.0
    return max(MIN_CLUSTERS, clips + 1, int(np.ceil(clips * (usual * error / mean) ** 2)))


def _window_among(
    shares: np.ndarray, labels: Sequence[str], empty: ShareWindow, seed: int, resamples: int
) -> ShareWindow:
    """Steps 2 to 5, on the data and on resamples of them."""
    n = shares.shape[1]
    band = simultaneous_band(shares, labels, seed=seed)
    spans = [(first, last) for first in range(n) for last in range(first + 1, n + 1)]
    sums = np.pad(np.cumsum(shares, 1), ((0, 0), (1, 0)))  # (items, n + 1)
    firsts, lasts = np.array(spans).T
    runs_of_items = sums[:, lasts] - sums[:, firsts]  # (items, spans)
    scan = simultaneous_band(runs_of_items, labels, seed=seed)
    place = {span: index for index, span in enumerate(spans)}
    bounds = scan.mean - scan.critical_one_sided * scan.se
    inside = _window(band.mean, band.high, bounds, place)
    found = replace(empty, low=band.low, high=band.high)
    if not inside.any():
        best = int(np.argmax(scan.mean / np.maximum(scan.se, 1e-12)))
        needed = _clips_needed(
            found.clips, float(scan.mean[best]), float(scan.se[best]), scan.critical_one_sided
        )
        return replace(found, verdict="too few clips", clips_needed=needed)
    if inside.sum() > SPREAD * n:
        return replace(found, verdict="spread")
    if not resamples:
        return replace(found, inside=inside, verdict="found")
    codes, count = cluster_codes(labels)
    layer_sums, sizes = cluster_sums(shares, codes, count)
    span_sums, _ = cluster_sums(runs_of_items, codes, count)
    windows = []
    for counts in resampled_counts(count, resamples, seed, len(spans)):
        mean, error = mean_and_error(counts, layer_sums, sizes)
        run_mean, run_error = mean_and_error(counts, span_sums, sizes)
        lower = run_mean - scan.critical_one_sided * run_error
        windows += [
            _window(*row, place) for row in zip(mean, mean + band.critical * error, lower, strict=True)
        ]
    resampled = np.array(windows)
    resampled &= (resampled.sum(1) <= SPREAD * n)[:, None]
    both, either = (resampled & inside).sum(1), (resampled | inside).sum(1)
    return replace(
        found,
        inside=inside,
        resampled=resampled,
        verdict="found",
        stability=float((both >= AGREE * either).mean()),
    )


def _window(
    share: np.ndarray, high: np.ndarray, bounds: np.ndarray, place: Mapping[tuple[int, int], int]
) -> np.ndarray:
    """Steps 2 to 4: bool [n].

    Args:
        share, high: of each layer, and its simultaneous upper bound, [n].
        bounds: simultaneous lower bound of the summed share of each contiguous run of layers.
        place: (first layer, last layer + 1) of a run -> its place in ``bounds``.
    """
    least = WORTH * share.max()
    worth = share >= least
    pieces = runs(np.flatnonzero(worth).tolist())
    for (_, last), (first, _) in pairwise(pieces):
        if first - last == 2 and high[last + 1] >= least:
            worth[last + 1] = True
    inside = np.zeros(len(share), bool)
    for first, last in runs(np.flatnonzero(worth).tolist()):
        inside[first : last + 1] = bounds[place[first, last + 1]] > 0
    return inside
