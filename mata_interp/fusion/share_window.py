"""The layers that carry the effect of the audio, with error control over layers.

From what each layer counts on each item, by one criterion or by the mean of several, and from the whole
effect of the audio on it:

1. *Is there an effect?* Each criterion's whole effect has to be at least 0.1 nats, with a one-sided 97.5 %
   bootstrap-t bound above 0. If the effect is smaller, there is no window; if only the bound fails, there are
   too few clips. Criteria whose sum has no meaning of its own (slopes, masses) skip the 0.1 nats, and only
   their positive parts count.
2. *Which layers are worth an edit?* Those whose share is at least a fifth of the largest share.
3. *Neighbours are pooled before they are split.* Adjacent layers of step 2 form one run. A gap of one layer
   is filled, unless a simultaneous upper bound shows that it falls short of the fifth.
4. *Which runs stand out?* Those whose summed share has a lower bound above 0. The bounds hold simultaneously
   for all contiguous runs of layers (max-T over runs), so that the chance that any run without an effect is
   taken is 5 %, however many layers there are.
5. If no run stands out, there are too few clips, and the number needed is estimated from their noise. If more
   than four fifths of the layers are in the window, the audio is read everywhere, and there is no window.

All steps are repeated in resamples of whole clips, with the critical values held fixed; their windows give
the intervals of the boundaries. The *stability* predicts how often as many other clips give a window that
overlaps this one by half (IoU >= 0.5); no window counts as a miss. These clips differ from the population as
other clips do, so that it counts windows of resamples of resamples. The spread of few clips is itself
uncertain, so that a frequency p with n clips becomes (n p + 2) / (n + 4), as in Agresti and Coull 1998 (The
American Statistician 52:119). Where few samples would show a window, it still promises too much: clips that
show one are a favourable sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mata_interp.statistics.clusters import cluster_codes, resampled_counts
from mata_interp.statistics.simultaneous import (
    MIN_CLUSTERS,
    SimultaneousBand,
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
PRIOR = 4  # clips that the stability is shrunk by
EFFECT_LEVEL = 0.975  # of the one-sided bound of each criterion's effect


@dataclass(frozen=True, eq=False)
class ShareWindow:
    """A window of layers and what it rests on.

    Attributes:
        inside: the window, bool [n].
        resampled: the window of each resample, bool [D, n]; [0, n] where there are too few clips to resample.
        share: share of each layer in what all layers count together, mean over criteria, [n]; the
            shares of all layers sum to 1.
        low, high: ends of the simultaneous 95 % band of the shares, [n]; NaN with fewer than 6 clips.
        verdict: ``"found"``, ``"no effect"``, ``"spread"``, ``"too few clips"`` or ``"nothing measured"``.
        stability: predicted probability that as many other clips give a window that overlaps this one by half
            (IoU >= 0.5); NaN without a window.
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
    nan, none = np.full(n, np.nan), np.zeros(n, bool)
    return ShareWindow(none, np.zeros((0, n), bool), np.zeros(n), nan, nan, "nothing measured")


def share_window(
    parts: np.ndarray,
    clusters: Sequence[str],
    min_effect: float | None = MIN_EFFECT,
    seed: int = 0,
    resamples: int = DRAWS,
    whole: np.ndarray | None = None,
) -> ShareWindow:
    """The layers that carry the effect.

    Args:
        parts: what each layer counts, float64 [criterion, item, n]. Items with a NaN are left out.
        clusters: cluster (clip) of each item.
        min_effect: the smallest effect that counts, in the unit of ``parts``; None where the sum over layers
            has no meaning of its own: only positive parts count then.
        seed: seed of the bootstrap.
        resamples: number of resamples whose windows are found for the stability and the boundaries; 0 leaves
            both out.
        whole: the whole effect by each criterion, float64 [criterion, item]; the sum over layers if not
            given.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> parts = rng.normal([0.0, 0.9, 1.1, 0.0], 0.5, (1, 40, 4))  # nats, in four layers
        >>> window = share_window(parts, [f"clip {i}" for i in range(40)])
        >>> window.inside.tolist(), window.verdict
        ([False, True, True, False], 'found')
    """
    effect: np.ndarray = parts.sum(2) if whole is None else whole
    complete = np.asarray(np.isfinite(parts).all(axis=(0, 2)) & np.isfinite(effect).all(0))
    labels = [cluster for cluster, there in zip(clusters, complete, strict=True) if there]
    if not labels:
        return nothing_measured(parts.shape[2])
    parts, effect = parts[:, complete], effect[:, complete]
    if min_effect is None:
        parts = parts.clip(0)
        effect = parts.sum(2)
    shares = _shares(parts)
    empty = replace(nothing_measured(parts.shape[2]), share=shares.mean(0), clips=len(set(labels)))
    effects = [simultaneous_band(x[:, None], labels, 2 * EFFECT_LEVEL - 1, seed=seed) for x in effect]
    verdict, needed = _effect(effects, min_effect or 0.0)
    if verdict != "found":
        return replace(empty, verdict=verdict, clips_needed=needed)
    rule = _Rule.from_items(shares, labels, seed)
    window = rule.apply_to_data(empty)
    if window.verdict != "found" or not resamples:
        return window
    step_one = _EffectBounds.from_items(effect.T, labels, effects, min_effect or 0.0)
    return _with_resamples(window, rule, step_one, seed, resamples)


def _shares(parts: np.ndarray) -> np.ndarray:
    """What each item says about the layers' shares, mean over criteria: [items, n].

    A share is a ratio of means, T_l / T. Its influence function, T_l / T + (t_il - T_l / T t_i) / T, is a
    number for each item whose mean is the share and whose standard error is that of the ratio (delta method).
    """
    whole = parts.sum(2)  # (criteria, items)
    total = whole.mean(1)  # (criteria,)
    divisor = np.where(total > 0, total, np.inf)[:, None, None]
    ratio = parts.mean(1)[:, None] / divisor  # (criteria, 1, n)
    influence = ratio + (parts - ratio * whole[:, :, None]) / divisor
    return influence.mean(0)


def _effect(effects: Sequence[SimultaneousBand], least: float) -> tuple[str, int | None]:
    """Step 1: "found", "no effect" or "too few clips", and about how many clips are needed."""
    needed = []
    for band in effects:
        mean, error = float(band.mean[0]), float(band.se[0])
        if mean < least or mean <= 0:
            return "no effect", None
        if not np.isfinite(band.critical) or mean - band.critical * error <= 0:
            needed.append(_clips_needed(band.clusters, mean, error, band.critical))
    return ("too few clips", max(needed)) if needed else ("found", None)


def _clips_needed(clips: int, mean: float, error: float, critical: float) -> int:
    """Number of clips with which ``mean`` would be ``critical`` standard errors, at the same noise."""
    usual = critical if np.isfinite(critical) else 3.0
    return max(MIN_CLUSTERS, clips + 1, int(np.ceil(clips * (usual * error / mean) ** 2)))


@dataclass(frozen=True, eq=False)
class _Columns:
    """Values whose means the rule looks at, summed by clip: [G, k], with the numbers of items [G]."""

    sums: np.ndarray
    sizes: np.ndarray

    @classmethod
    def from_items(cls, values: np.ndarray, labels: Sequence[str]) -> _Columns:
        return cls(*cluster_sums(values, *cluster_codes(labels)))

    def means(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard errors, [D, k] each, in samples that hold each clip so often, [D, G]."""
        return mean_and_error(counts, self.sums, self.sizes)


@dataclass(frozen=True, eq=False)
class _EffectBounds:
    """Step 1 in resamples: each criterion's whole effect, its critical value, and the least that counts."""

    effects: _Columns
    critical: np.ndarray
    least: float

    @classmethod
    def from_items(
        cls, whole: np.ndarray, labels: Sequence[str], bands: Sequence[SimultaneousBand], least: float
    ) -> _EffectBounds:
        return cls(_Columns.from_items(whole, labels), np.array([band.critical for band in bands]), least)

    def hold(self, counts: np.ndarray) -> np.ndarray:
        """Whether samples show an effect, bool [D]."""
        mean, error = self.effects.means(counts)
        return np.all((mean >= self.least) & (mean - self.critical * error > 0), axis=1)


@dataclass(frozen=True, eq=False)
class _Rule:
    """Steps 2 to 5 with their critical values, applied to the data and to resamples alike.

    Attributes:
        shares: of the layers.
        runs: summed shares of all contiguous runs of layers.
        place: [n, n], the column of ``runs`` of each first and last layer.
        band: simultaneous band of the shares.
        scan: simultaneous bounds of the runs.
    """

    shares: _Columns
    runs: _Columns
    place: np.ndarray
    band: SimultaneousBand
    scan: SimultaneousBand

    @classmethod
    def from_items(cls, shares: np.ndarray, labels: Sequence[str], seed: int) -> _Rule:
        n = shares.shape[1]
        firsts, lasts = np.triu_indices(n)
        place = np.zeros((n, n), int)
        place[firsts, lasts] = np.arange(len(firsts))
        sums = np.pad(np.cumsum(shares, 1), ((0, 0), (1, 0)))  # (items, n + 1)
        runs = sums[:, lasts + 1] - sums[:, firsts]  # (items, runs)
        return cls(
            _Columns.from_items(shares, labels),
            _Columns.from_items(runs, labels),
            place,
            simultaneous_band(shares, labels, seed=seed),
            simultaneous_band(runs, labels, seed=seed),
        )

    def apply_to_data(self, empty: ShareWindow) -> ShareWindow:
        """Steps 2 to 5 on all clips, without stability."""
        once = np.ones((1, len(self.shares.sizes)))
        inside = self.apply(once)[0]
        window = replace(empty, low=self.band.low, high=self.band.high)
        if not inside.any():
            best = int(np.argmax(self.scan.mean / np.maximum(self.scan.se, 1e-12)))
            mean, error = float(self.scan.mean[best]), float(self.scan.se[best])
            needed = _clips_needed(window.clips, mean, error, self.scan.critical_one_sided)
            return replace(window, verdict="too few clips", clips_needed=needed)
        if inside.sum() > SPREAD * len(inside):
            return replace(window, verdict="spread")
        return replace(window, inside=inside, verdict="found")

    def apply(self, counts: np.ndarray) -> np.ndarray:
        """Steps 2 to 4 on samples that hold each clip so often [D, G]: the layers taken, bool [D, n]."""
        share, error = self.shares.means(counts)
        least = WORTH * share.max(1, keepdims=True)
        worth, fillable = share >= least, share + self.band.critical * error >= least
        worth[:, 1:-1] |= fillable[:, 1:-1] & worth[:, :-2] & worth[:, 2:]
        mean, error = self.runs.means(counts)
        bounds = mean - self.scan.critical_one_sided * error
        first, last = _ends_of_runs(worth)
        return worth & (np.take_along_axis(bounds, self.place[first, last], 1) > 0)


def _ends_of_runs(worth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last layer of the run that holds each layer, int [D, n] each; 0 outside runs.

    >>> [ends.tolist() for ends in _ends_of_runs(np.array([[True, True, False, True]]))]
    [[[0, 0, 0, 3]], [[1, 1, 0, 3]]]
    """
    n = worth.shape[1]
    layers = np.arange(n)
    first = np.maximum.accumulate(np.where(worth, 0, layers + 1), 1)
    last = np.minimum.accumulate(np.where(worth, n - 1, layers - 1)[:, ::-1], 1)[:, ::-1]
    return np.where(worth, first, 0), np.where(worth, last, 0)


def _with_resamples(
    window: ShareWindow, rule: _Rule, effect: _EffectBounds, seed: int, resamples: int
) -> ShareWindow:
    """The window with those of resamples, and its stability."""
    count, rng = len(rule.shares.sizes), np.random.default_rng([seed, 1])
    once, twice = [], []
    for counts in resampled_counts(count, resamples, seed, rule.place.size):
        once.append(_sample_windows(rule, effect, counts))
        twice.append(_sample_windows(rule, effect, rng.multinomial(count, counts / count)))
    others = np.concatenate(twice)
    both, either = (others & window.inside).sum(1), (others | window.inside).sum(1)
    similar = float((both >= AGREE * either).mean())
    stability = (count * similar + PRIOR / 2) / (count + PRIOR)
    return replace(window, resampled=np.concatenate(once), stability=stability)


def _sample_windows(rule: _Rule, effect: _EffectBounds, counts: np.ndarray) -> np.ndarray:
    """The windows of samples that hold each clip so often, by all steps: bool [D, n]."""
    layers = rule.apply(counts)
    spread = layers.sum(1) > SPREAD * layers.shape[1]
    return layers & (effect.hold(counts) & ~spread)[:, None]
