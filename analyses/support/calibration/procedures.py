"""The effect of a selection procedure: coverage and type I error of `crossfit_effect`."""

from __future__ import annotations

import numpy as np

from mata_interp.statistics import crossfit_effect

from .families import _correlated
from .rows import Row, row
from .worlds import clip_sizes

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
    labels = np.repeat(np.arange(clips), sizes)
    truth = np.zeros(configurations)
    truth[: len(effects)] = effects
    rejected, low, high, chosen = np.zeros((4, replicates))
    rejected_answers = np.zeros(replicates)
    for replicate in range(replicates):
        changes = _correlated(shape, sizes, configurations, 0.9, 0.3, rng) + truth
        answers = np.sign(changes) * (np.abs(changes) > 1.3)
        found = crossfit_effect(changes, changes, labels, draws=DRAWS, seed=replicate)
        of_answers = crossfit_effect(changes, answers, labels, draws=DRAWS, seed=replicate)
        rejected[replicate], low[replicate], high[replicate] = found.p <= 0.05, found.low, found.high
        rejected_answers[replicate] = of_answers.p <= 0.05
        chosen[replicate] = truth[list(found.chosen)].mean()
    mean = chosen.mean()
    quantity = "power" if truth.any() else "type I error"
    return [
        row(cell, "crossfit_effect", quantity, rejected),
        row(cell, "crossfit_effect, answers", quantity, rejected_answers),
        row(cell, "crossfit_effect", "coverage", (low <= mean) & (mean <= high)),
    ]
