"""The effect of a selection procedure: choose a configuration on some clips, measure it on the others.

A study that chooses once and tests once says what one configuration does. Cross-fitting says what choosing
does: the clips are divided into folds, a configuration is chosen without each fold and measured on it, so
that every clip takes part in a measurement and none in the choice that it measures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from ..errors import ArgumentError
from ..seeding import named_generator
from .clusters import cluster_codes, resampled_counts
from .proportions import check_level
from .simultaneous import cluster_sums

__all__ = ["CrossfitEffect", "Fit", "crossfit_effect", "fit_procedure"]

DRAWS = 1999
_BLOCK = 2_000_000  # numbers in memory at once


@dataclass(frozen=True, kw_only=True)
class CrossfitEffect:
    """The effect of choosing a configuration on the clips of all folds but one.

    Attributes:
        n, n_clusters: number of items and of clusters.
        folds: number of folds.
        difference: mean change over all items, each under the configuration that was chosen without it.
        low, high: its interval; NaN where the clusters do not differ.
        level: coverage of the interval.
        p: p-value of the hypothesis that no configuration changes anything, two-sided.
        chosen: the configuration (a column) that was chosen without each fold.
        frequency: of each configuration, how often it was chosen over folds and resamples, 0 to 1.
        draws: number of resamples, and of sign patterns.
        seed: seed of folds, resamples and sign patterns.
        method: how interval and test were made.
    """

    n: int
    n_clusters: int
    folds: int
    difference: float
    low: float
    high: float
    level: float
    p: float
    chosen: tuple[int, ...]
    frequency: tuple[float, ...]
    draws: int
    seed: int
    method: str = (
        "cluster bootstrap and sign flips of whole clusters, with the selection repeated in every resample"
    )


def crossfit_effect(
    selection: ArrayLike,
    outcome: ArrayLike,
    clusters: Iterable | None = None,
    *,
    folds: int = 5,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> CrossfitEffect:
    """Effect of choosing the configuration with the best mean change, without the clips it is measured on.

    The selection is a part of the procedure, so it is repeated in every resample: a cluster bootstrap gives
    the standard error (all copies of a cluster stay in its fold), and the interval is the estimate -+ t x
    that error with clusters - 1 degrees of freedom. For the test, the signs of whole clusters are flipped
    under all configurations at once and the selection is repeated; it is valid if changes are symmetric about
    0 where no configuration does anything.

    The estimate is about the procedure with (folds - 1) / folds of the clips, not about one configuration.

    Args:
        selection: change of each item under each configuration by which one is chosen, such as the margin's,
            ``[n, k]``. The largest mean wins; of equal ones, the first.
        outcome: the change that is measured, such as that of correctness, ``[n, k]``.
        clusters: label of each item's cluster, ``[n]``; None: each item is its own.
        folds: number of folds, at least 2 and at most the number of clusters.
        draws: number of resamples and of sign patterns.
        seed: seed of folds, resamples and sign patterns.
        level: coverage of the interval.

    Raises:
        ArgumentError: the shapes do not fit, a value is not finite, or there are too few clusters.

    See Also:
        max_t: tests of all configurations at once.

    Examples:
        >>> import numpy as np
        >>> from mata_interp.statistics import crossfit_effect
        >>> changes = np.random.default_rng(0).normal([0.0, 0.8, 0.1], 1.0, (60, 3))
        >>> found = crossfit_effect(changes, changes)
        >>> found.chosen, found.p < 0.01
        ((1, 1, 1, 1, 1), True)
    """
    check_level(level)
    chosen_by, measured = _checked(selection, outcome)
    codes, count = cluster_codes(range(len(measured)) if clusters is None else clusters)
    if len(codes) != len(measured):
        raise ArgumentError(f"clusters names {len(codes)} items, but there are {len(measured)}.")
    if not 2 <= folds <= count:
        raise ArgumentError(f"folds is {folds}: it must be at least 2 and at most the {count} clusters.")
    sums, sizes = cluster_sums(np.hstack([chosen_by, measured]), codes, count)
    of_choice, of_outcome = np.hsplit(sums, 2)
    fit = fit_procedure(of_choice, of_outcome, sizes, folds, draws, seed, level)
    difference, radius = float(fit.difference), float(fit.radius)
    return CrossfitEffect(
        n=len(measured),
        n_clusters=count,
        folds=folds,
        difference=difference,
        low=difference - radius,
        high=difference + radius,
        level=level,
        p=float(fit.p),
        chosen=tuple(fit.chosen.tolist()),
        frequency=tuple((fit.choices / fit.choices.sum()).tolist()),
        draws=draws,
        seed=seed,
    )


@dataclass(frozen=True)
class Fit:
    """What `fit_procedure` found in each data set.

    Attributes:
        difference: mean change, ``[...]``.
        radius: half of the interval's width, ``[...]``; NaN where the clusters do not differ.
        p: p-values, ``[...]``.
        chosen: what was chosen without each fold, ``[..., folds]``.
        choices: how often each configuration was chosen over folds and resamples, ``[k]``, all data sets
            together.
    """

    difference: np.ndarray
    radius: np.ndarray
    p: np.ndarray
    chosen: np.ndarray
    choices: np.ndarray


def fit_procedure(
    selection: np.ndarray,
    outcome: np.ndarray,
    sizes: np.ndarray,
    folds: int,
    draws: int,
    seed: int,
    level: float,
) -> Fit:
    """`crossfit_effect` of one data set, or of several with the same folds, resamples and signs.

    Args:
        selection, outcome: sums over each cluster's items, ``[G, ..., k]``; the dimensions between are those
            of the data sets.
        sizes: number of items of each cluster, ``[G]``.
        folds, draws, seed, level: as in `crossfit_effect`.
    """
    count, width = len(sizes), 2 * selection[0].size
    fold = np.empty(count, dtype=int)
    fold[named_generator(seed, "cross-fitting folds").permutation(count)] = np.arange(count) % folds
    procedure = _Procedure(selection, outcome, sizes, fold, folds)
    estimate, chosen = procedure(np.ones((1, count)))
    resampled, choices = [], np.zeros(selection.shape[-1])
    for counts in resampled_counts(count, draws, seed, width):
        means, picked = procedure(counts.astype(float))
        resampled.append(means)
        choices += np.bincount(picked.ravel(), minlength=len(choices))
    spread = np.nanstd(np.concatenate(resampled), axis=0, ddof=1)
    radius = t.ppf((1 + level) / 2, count - 1) * np.where(spread > 0, spread, nan)
    return Fit(estimate[0], radius, _sign_flip_p(procedure, count, draws, seed), chosen[0], choices)


def _checked(selection: ArrayLike, outcome: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(selection, dtype=float), np.asarray(outcome, dtype=float)
    if first.ndim != 2 or first.shape != second.shape or not first.size:
        raise ArgumentError(
            f"selection is {first.shape} and outcome {second.shape}: both need a row for each item and a "
            "column for each configuration."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ArgumentError("A change is not finite: leave items without a value out.")
    return first, second


@dataclass(frozen=True)
class _Procedure:
    """Choose without each fold, measure on it.

    Attributes:
        selection, outcome: sums over each cluster's items, ``[G, ..., k]``.
        sizes: number of items of each cluster, ``[G]``.
        fold: fold of each cluster, ``[G]``.
        folds: number of folds.
    """

    selection: np.ndarray
    outcome: np.ndarray
    sizes: np.ndarray
    fold: np.ndarray
    folds: int

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean change ``[D, ...]`` and choices ``[D, ..., folds]`` for weights of the clusters ``[D, G]``; a
        negative weight turns a cluster's changes over."""
        whole = np.tensordot(weights, self.selection, 1)  # (D, ..., k)
        measured, chosen = np.zeros(whole.shape[:-1]), []
        for fold in range(self.folds):
            inside = self.fold == fold
            part = weights[:, inside]
            picked = (whole - np.tensordot(part, self.selection[inside], 1)).argmax(-1)
            values = np.tensordot(part, self.outcome[inside], 1)
            measured += np.take_along_axis(values, picked[..., None], -1)[..., 0]
            chosen.append(picked)
        total = np.abs(weights) @ self.sizes
        return measured / total.reshape(-1, *[1] * (measured.ndim - 1)), np.stack(chosen, -1)


def _sign_flip_p(procedure: _Procedure, count: int, draws: int, seed: int) -> np.ndarray:
    """p-values of the estimates under flips of whole clusters, the observed signs counted as one draw."""
    rng = named_generator(seed, "cross-fitting signs")
    observed = np.abs(procedure(np.ones((1, count)))[0][0])
    rows = max(1, _BLOCK // max(count, procedure.selection[0].size))
    as_far = np.zeros(observed.shape)
    for start in range(0, draws, rows):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (min(rows, draws - start), count))
        as_far += (np.abs(procedure(signs)[0]) >= observed - 1e-12).sum(0)
    return (1 + as_far) / (1 + draws)
