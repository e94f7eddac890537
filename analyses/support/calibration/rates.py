"""Rates: accuracies, text dominance and text prior over clips of several items, and one proportion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from mata_interp.statistics import (
    clustered_interval,
    proportion,
    ratio_interval,
    text_dominance,
    text_prior,
    wilson_interval,
)
from mata_interp.statistics.clusters import resampled_counts
from mata_interp.statistics.intervals import effective_fraction

from .bootstraps import t_interval
from .rows import Row, row
from .worlds import blocks, clip_sizes, clip_sums

__all__ = ["rates", "wilson"]

CHECKED = 10  # replicates of each cell that are compared with the package's own functions
BOOTSTRAPS = 2000  # replicates of the percentile bootstrap
RESAMPLES = 999
UNUSED = "not what the package reports: it reported this before"
MEANS = "for means of any values, such as margins; the package reports `proportion` for rates"
Interval = tuple[np.ndarray, np.ndarray]


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
    truths = {"proportion": with_audio, "text_prior": without / with_audio, "text_dominance": without}
    truths |= {"mean": with_audio, "percentile": with_audio}
    held: dict[str, list[np.ndarray]] = {name: [] for name in truths}
    for count in blocks(replicates, 4 * int(sizes.sum())):
        answers = Answers.draw(sizes, count, with_audio, without, correlation, rng)
        ends = answers.intervals()
        if not held["percentile"]:
            answers.compare(ends)
            ends["percentile"] = answers.percentiles(BOOTSTRAPS)
        for name, (low, high) in ends.items():
            held[name].append((low <= truths[name]) & (truths[name] <= high))
    added = "" if (sizes == 1).all() else ", clustered"
    names = {
        "proportion": f"proportion (Wilson{added})",
        "text_dominance": f"text_dominance (Wilson{added})",
        "text_prior": f"text_prior (score of a ratio{added})",
    }
    rows = [row(cell, label, "coverage", np.concatenate(held[name])) for name, label in names.items()]
    others = {"mean": ("clustered_interval (t)", MEANS), "percentile": ("percentile bootstrap", UNUSED)}
    return rows + [
        row(cell, f"{label} of a rate", "coverage", np.concatenate(held[name]), note, goal=False)
        for name, (label, note) in others.items()
    ]


@dataclass(frozen=True)
class Answers:
    """Correct answers with and without audio, and answers that follow the text or the audio.

    Attributes:
        sizes: number of items of each clip, ``[G]``.
        right, blind, text, audio: truth value of each item, bool ``[R, items]``.
    """

    sizes: np.ndarray
    right: np.ndarray
    blind: np.ndarray
    text: np.ndarray
    audio: np.ndarray

    @classmethod
    def draw(
        cls,
        sizes: np.ndarray,
        replicates: int,
        with_audio: float,
        without: float,
        correlation: float,
        rng: np.random.Generator,
    ) -> Answers:
        """Draw data sets whose items are correlated within clips; see `rates`."""
        labels = np.repeat(np.arange(len(sizes)), sizes)

        def uniform() -> np.ndarray:
            clip = rng.standard_normal((replicates, len(sizes)))[:, labels]
            alone = rng.standard_normal((replicates, len(labels)))
            return norm.cdf(np.sqrt(correlation) * clip + np.sqrt(1 - correlation) * alone)

        right, blind, side = uniform() < with_audio, uniform() < without, uniform()
        return cls(sizes, right, blind, side < 0.8 * without, side > 1 - 0.8 * (1 - without))

    def intervals(self) -> dict[str, Interval]:
        """Name -> ends, ``[R]`` each, with the package's formulas for all data sets at once."""
        right, blind = self._sums(self.right), self._sums(self.blind)
        text, audio = self._sums(self.text), self._sums(self.audio)
        both = self._sums(self.right & self.blind)
        return {
            "proportion": _wilson(right, np.broadcast_to(self.sizes, right.shape)),
            "text_dominance": _wilson(text, text + audio),
            "text_prior": _ratio(both, blind - both, right - both),
            "mean": t_interval(right, self.sizes),
        }

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return clip_sums(values.astype(float), self.sizes)

    def percentiles(self, most: int) -> Interval:
        """The percentile bootstrap interval of accuracy in the first ``most`` data sets."""
        sums = self._sums(self.right)[:most]
        counts = next(iter(resampled_counts(len(self.sizes), RESAMPLES, 0)))
        means = (counts @ sums.T) / (counts @ self.sizes)[:, None]  # (D, R)
        low, high = np.quantile(means, [0.025, 0.975], axis=0)
        return low, high

    def compare(self, ends: dict[str, Interval]) -> None:
        """Raise if the first data sets have other intervals than the package's functions give them."""
        labels = np.repeat(np.arange(len(self.sizes)), self.sizes)
        for r in range(min(CHECKED, len(self.right))):
            mean = clustered_interval(self.right[r].astype(float), labels)
            reference = {
                "proportion": proportion(self.right[r], labels),
                "text_dominance": text_dominance(self.text[r], self.audio[r], labels),
                "text_prior": text_prior(self.blind[r], self.right[r], labels),
            }
            for name, rate in reference.items():
                here = [end[r] for end in ends[name]]
                np.testing.assert_allclose(here, [rate.low, rate.high], atol=1e-9, err_msg=name)
            np.testing.assert_allclose([end[r] for end in ends["mean"]], mean[1:], atol=1e-9)


def _wilson(true: np.ndarray, counted: np.ndarray) -> Interval:
    """Ends of `proportion` from sums ``[R, G]`` of items of which it is true and of those that count."""
    n, top = counted.sum(1), true.sum(1)
    p = top / n
    fraction = effective_fraction(true - p[:, None] * counted, counted, n * p * (1 - p))
    low, high = proportion_confint(fraction * top, fraction * n, method="wilson")
    return np.asarray(low), np.asarray(high)


def _ratio(both: np.ndarray, first: np.ndarray, second: np.ndarray) -> Interval:
    """Ends of `text_prior` from sums ``[R, G]`` of items right in both ways, or in one of them."""
    counts = [part.sum(1) for part in (both, first, second)]
    ratio = (counts[0] + counts[1]) / (counts[0] + counts[2])
    residuals = both + first - ratio[:, None] * (both + second)
    squares = counts[0] * (1 - ratio) ** 2 + counts[1] + counts[2] * ratio**2
    fraction = effective_fraction(residuals, both + first + second, squares)
    return ratio_interval(*(fraction * count for count in counts))


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
