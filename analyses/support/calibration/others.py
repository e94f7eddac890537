"""Rates, strata, trend, association and power: the remaining procedures of the package."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from mata_interp.statistics import (
    clustered_interval,
    detectable_difference,
    items_needed,
    mcnemar_mid,
    paired_power,
    proportion,
    rank_association,
    stratified_effect,
    text_dominance,
    text_prior,
    trend_test,
    wilson_interval,
)

from .rows import Row, row
from .worlds import SHAPES, clip_sizes

__all__ = ["association", "power", "rates", "strata", "trend", "wilson"]


def _uniform(labels: np.ndarray, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """Uniform numbers of items, correlated within clips."""
    clip = rng.standard_normal(labels.max() + 1)[labels]
    own = rng.standard_normal(len(labels))
    return norm.cdf(np.sqrt(correlation) * clip + np.sqrt(1 - correlation) * own)


def rates(
    cell: str,
    replicates: int,
    rng: np.random.Generator,
    *,
    clips: int,
    items: tuple[int, int],
    with_audio: float,
    without: float,
    correlation: float = 0.3,
) -> list[Row]:
    """Coverage of `proportion`, `text_prior`, `text_dominance` and `clustered_interval`.

    Args:
        cell, replicates, rng: as in `answers`.
        clips, items, correlation: as in `AnswerWorld`.
        with_audio, without: accuracy with and without audio; ``without`` is also the chance of following the
            text in the ratio of text dominance, in which a fifth of the answers follows neither.
    """
    sizes = clip_sizes(clips, items, rng)
    labels = np.repeat(np.arange(clips), sizes)
    holds: dict[str, list[bool]] = {"proportion": [], "text_prior": [], "text_dominance": [], "mean": []}
    for replicate in range(replicates):
        right = _uniform(labels, correlation, rng) < with_audio
        blind = _uniform(labels, correlation, rng) < without
        side = _uniform(labels, correlation, rng)
        follows_text, follows_audio = side < 0.8 * without, side > 1 - 0.8 * (1 - without)
        one = proportion(right, labels, seed=replicate)
        two = text_prior(blind, right, labels, seed=replicate)
        three = text_dominance(follows_text, follows_audio, labels, seed=replicate)
        _, low, high = clustered_interval(right.astype(float), labels, seed=replicate)
        holds["proportion"].append(one.low <= with_audio <= one.high)
        holds["text_prior"].append(two.low <= without / with_audio <= two.high)
        holds["text_dominance"].append(three.low <= without <= three.high)
        holds["mean"].append(bool(low <= with_audio <= high))
    how = "Wilson" if (sizes == 1).all() else "percentile bootstrap"
    names = {"proportion": how, "text_dominance": how}
    rows = [
        row(cell, f"{name} ({names.get(name, 'percentile bootstrap')})", "coverage", np.array(values))
        for name, values in holds.items()
        if name != "mean"
    ]
    return [
        *rows,
        row(cell, "clustered_interval (percentile bootstrap)", "coverage", np.array(holds["mean"])),
    ]


def strata(
    cell: str, replicates: int, rng: np.random.Generator, *, sizes: tuple[int, ...], discordance: float
) -> list[Row]:
    """Coverage of the combined change of `stratified_effect`, and type I error of Cochran's Q.

    Args:
        cell, replicates, rng: as in `answers`.
        sizes: number of items of each stratum.
        discordance: fraction of items whose answer changes, half of them to the better, in every stratum.
    """
    names = np.repeat(np.arange(len(sizes)), sizes)
    covered, differs = np.zeros((2, replicates))
    for replicate in range(replicates):
        u = rng.random(len(names))
        before = (u < discordance / 2) | (rng.random(len(names)) < 0.5) & (u > discordance)
        after = np.where(u < discordance / 2, False, np.where(u < discordance, True, before))
        found = stratified_effect(before, after, names.tolist())
        covered[replicate] = np.nan if np.isnan(found.low) else found.low <= 0 <= found.high
        differs[replicate] = np.nan if np.isnan(found.q_p) else found.q_p <= 0.05
    return [
        row(cell, "stratified_effect, combined", "coverage", covered),
        row(cell, "stratified_effect, Cochran's Q", "type I error", differs),
    ]


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
    rejected = np.zeros(replicates, bool)
    for replicate in range(replicates):
        responses = rng.normal(size=(len(labels), 6)) + rng.normal(size=(clips, 6))[labels]
        rejected[replicate] = trend_test(responses + rise * np.arange(6), labels, replicate)[1] <= 0.05
    return [row(cell, "trend_test", "power" if rise else "type I error", rejected)]


def association(
    cell: str,
    replicates: int,
    rng: np.random.Generator,
    *,
    clips: int,
    items: tuple[int, int],
    slope: float,
    shape: str = "skewed",
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
    rejected, covered = np.zeros((2, replicates), bool)

    def noise() -> np.ndarray:
        return draw(rng, (len(labels),)) + draw(rng, (clips,))[labels]

    for replicate in range(replicates):
        covariate, dose = noise(), noise()
        gain = slope * dose + noise() + 0.5 * covariate
        found = rank_association(dose + 0.5 * covariate, gain, [covariate], labels, replicate)
        rejected[replicate] = found.p <= 0.05
        covered[replicate] = found.low <= 0 <= found.high
    if slope:
        return [row(cell, "rank_association", "power", rejected)]
    return [
        row(cell, "rank_association", "type I error", rejected),
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
        found = row(cell, f"{what}, mid-p", "power", p <= 0.05, f"claimed {100 * claimed:.1f} %")
        rows.append(Row(**{**found.__dict__, "low": claimed - 0.005, "high": claimed + 0.005}))
    return rows


def wilson(cell: str, replicates: int, rng: np.random.Generator, *, n: int, rate: float) -> list[Row]:
    """Coverage of `wilson_interval`.

    Args:
        cell, replicates, rng: as in `answers`.
        n: number of items.
        rate: true proportion.
    """
    counts, place = np.unique(rng.binomial(n, rate, replicates), return_inverse=True)
    ends = np.array([wilson_interval(int(count), n) for count in counts])[place.ravel()]
    return [row(cell, "wilson_interval", "coverage", (ends[:, 0] <= rate) & (rate <= ends[:, 1]))]
