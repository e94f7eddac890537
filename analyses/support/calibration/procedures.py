"""The effect of a selection procedure: coverage and type I error of `crossfit_effect`."""

from __future__ import annotations

import numpy as np

from mata_interp.statistics import crossfit_effect
from mata_interp.statistics.crossfit import Fit, fit_procedure

from .rows import Row, row
from .worlds import clip_labels, clip_sizes, clip_sums, correlated, shared_blocks

__all__ = ["crossfit"]

DRAWS = 499  # resamples and sign patterns; the package uses 1,999


def crossfit(
    cell: str,
    replicates: int,
    rng: np.random.Generator,
    *,
    clips: int,
    items: tuple[int, int],
    configurations: int,
    shape: str = "normal",
    effects: tuple[float, ...] = (),
) -> list[Row]:
    """Cross-fit the choice by margin, and measure margins and answers.

    Answers are the signs of changes above 1.3 standard deviations, as in `sweep`. The truth of the coverage
    is the mean, over the replicates, of the true effect of what was chosen.

    Args:
        cell, replicates, rng: as in `answers`.
        clips, items, shape, configurations: as in `sweep`.
        effects: true mean changes of the first configurations, in standard deviations.
    """
    sizes = clip_sizes(clips, items, rng)
    truth = np.zeros(configurations)
    truth[: len(effects)] = effects
    parts: list[tuple[np.ndarray, ...]] = []
    for seed, count in shared_blocks(replicates):
        changes = correlated(shape, sizes, configurations, count, rng) + truth
        answers = np.sign(changes) * (np.abs(changes) > 1.3)
        of_margins, of_answers = (fitted(changes, outcome, sizes, seed) for outcome in (changes, answers))
        ends = of_margins.difference - of_margins.radius, of_margins.difference + of_margins.radius
        rejected = of_margins.p <= 0.05, of_answers.p <= 0.05
        parts.append((*rejected, *ends, truth[of_margins.chosen].mean(1)))
        if seed == 0:
            _compare(changes[0], answers[0], sizes, of_answers)
    rejected, rejected_answers, low, high, chosen = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    mean = chosen.mean()
    quantity = "power" if truth.any() else "type I error"
    skewed = "" if shape == "normal" else "skewed: more answers rise than fall, so the null is not true"
    return [
        row(cell, "crossfit_effect", quantity, rejected),
        row(cell, "crossfit_effect, answers", quantity, rejected_answers, skewed, not skewed),
        row(cell, "crossfit_effect", "coverage", (low <= mean) & (mean <= high)),
    ]


def fitted(selection: np.ndarray, outcome: np.ndarray, sizes: np.ndarray, seed: int) -> Fit:
    """`crossfit_effect` of each data set ``[R, items, k]``, with the same folds, resamples and signs."""
    by, measured = (np.moveaxis(clip_sums(values, sizes), 1, 0) for values in (selection, outcome))
    return fit_procedure(by, measured, sizes.astype(float), folds=5, draws=DRAWS, seed=seed, level=0.95)


def _compare(selection: np.ndarray, outcome: np.ndarray, sizes: np.ndarray, fit: Fit) -> None:
    """Raise if the first data set differs from `crossfit_effect` with the same seed."""
    reference = crossfit_effect(selection, outcome, clip_labels(sizes), draws=DRAWS, seed=0)
    here = fit.difference[0], fit.difference[0] - fit.radius[0], fit.p[0]
    np.testing.assert_allclose(here, [reference.difference, reference.low, reference.p], atol=1e-10)
