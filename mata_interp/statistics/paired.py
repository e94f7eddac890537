"""paired_effect: the same items before and after a change."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from math import fsum, nan
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ArgumentError
from .choices import REFUSED, chosen_here
from .effect import Effect
from .proportions import check_level, mcnemar_exact, mcnemar_mid, tango_interval
from .resampling import DRAWS, bootstrap_interval, sign_flip, sign_flip_counts
from .units import Units

__all__ = ["paired_effect", "paired_values"]

BOOTSTRAP_UNITS = 20  # with fewer, a resample often holds so few different units that its error says nothing
FEW_SKEWED = 50  # units below which the t interval of skewed changes covers less than it says


def paired_effect(
    before: ArrayLike,
    after: ArrayLike,
    kind: Literal["binary", "margin"] = "binary",
    clusters: Iterable | None = None,
    seed: int = 0,
    level: float = 0.95,
    chosen_on: Iterable[Hashable] = (),
) -> Effect:
    """Compare the same items before and after a change: estimate, interval and test.

    - ``kind="binary"``: 0 for a wrong answer, 1 for a correct one. Tango's score interval and McNemar's mid-p
      test, which nearly always agree about zero.
    - ``kind="margin"``: any number, e.g. log p(correct) - log p(best wrong). Student's t interval of the mean
      difference and the paired sign-flip test. From 20 items or clusters on, a symmetric bootstrap-t interval
      is reported beside them; percentile, BCa and plain bootstrap-t intervals cover less than they say.
      With fewer than 50 items or clusters whose changes are skewed, the t interval covers 90 to 93 %;
      ``note`` then says so. The sign-flip test assumes that changes are symmetric about 0 where nothing
      happens; with few skewed changes of mean 0 it rejects more than its level.
    - With `clusters` of several items: the cluster-robust t interval (CR2, with Satterthwaite's degrees of
      freedom where clusters differ in size) and the sign-flip test that flips whole clusters. Clusters of one
      item each change nothing.

    `analyses/calibration.md` says how often each of these covers and rejects.

    Args:
        before, after: One value per item, in the same order, ``[n]``.
        kind: "binary" or "margin". Margins passed as binary are refused, not rounded.
        clusters: Label of each item's cluster, e.g. its source recording: any hashable values, ``[n]``.
        seed: Seed of the permutation and the bootstrap.
        level: Coverage of the intervals.
        chosen_on: Labels of the clusters on which the change was chosen among others, such as
            ``Mata.chosen_on``. If one of them is compared here, all p-values are NaN and ``note`` says why.

    Returns:
        The `Effect`.

    Raises:
        ArgumentError: Lengths differ, or a value is missing, infinite, or (binary) neither 0 nor 1.

    See Also:
        holm: Correct several p-values.

    >>> effect = paired_effect([0, 0, 0, 1], [1, 1, 0, 1])
    >>> effect.fixed, effect.broken, effect.difference
    (2, 0, 0.5)
    """
    check_level(level)
    if kind not in ("binary", "margin"):
        raise ArgumentError(f"kind must be 'binary' or 'margin', got {kind!r}")
    x, y = paired_values(before, after, kind)
    labels = None if clusters is None else list(clusters)
    if labels is not None and len(labels) != len(x):
        raise ArgumentError(f"clusters names {len(labels)} items, but there are {len(x)}")
    if labels is not None and any(label is None or label != label for label in labels):
        raise ArgumentError("clusters must name a cluster for every item; None or NaN found")

    units = Units.gather(y - x, labels)
    analysis = _binary(x, y, units, level) if kind == "binary" else _margin(x, y, units, level, seed)
    effect = Effect(
        **analysis,
        kind=kind,
        n=len(x),
        n_clusters=None if labels is None else len(units),
        before=fsum(x) / len(x) if len(x) else nan,
        after=fsum(y) / len(y) if len(y) else nan,
        difference=units.mean if len(x) else nan,
        level=level,
        seed=seed,
    )
    reused = chosen_here(chosen_on, labels)
    return _without_tests(effect, reused) if reused else effect


def _without_tests(effect: Effect, reused: int) -> Effect:
    """The effect without its p-values, because it was chosen on clusters that are compared."""
    reason = (
        f"Chosen on {reused} of the {effect.n_clusters} clusters that are compared: there is no p-value, and "
        "difference and interval are too favourable."
    )
    return replace(
        effect,
        p=nan,
        p_method=REFUSED,
        p_mcnemar_exact=nan,
        p_mcnemar_mid=nan,
        p_permutation=nan,
        note=f"{effect.note} {reason}".strip(),
    )


def paired_values(before: ArrayLike, after: ArrayLike, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The two measurements as arrays, checked.

    Args:
        before, after, kind: as in `paired_effect`.

    Raises:
        ArgumentError: as in `paired_effect`.
    """
    x, y = _checked("before", before, kind), _checked("after", after, kind)
    if len(x) != len(y):
        raise ArgumentError(f"before has {len(x)} items and after has {len(y)}: pair them item by item")
    return x, y


def _checked(name: str, values: ArrayLike, kind: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name} must hold one number an item: {error}") from None
    if array.ndim != 1:
        raise ArgumentError(f"{name} must be one-dimensional, got shape {array.shape}")
    for i in np.flatnonzero(~np.isfinite(array)):
        raise ArgumentError(f"{name}[{i}] is {array[i]}: leave items without a value out of both")
    if kind == "binary":
        for i in np.flatnonzero((array != 0) & (array != 1)):
            raise ArgumentError(f"{name}[{i}] is {array[i]:g}: kind='binary' takes 0 (wrong) and 1 (right)")
    return array


def _binary(x: np.ndarray, y: np.ndarray, units: Units, level: float) -> dict[str, Any]:
    n, fixed, broken = len(x), int(np.sum(x < y)), int(np.sum(x > y))
    analysis: dict[str, Any] = {
        "fixed": fixed,
        "broken": broken,
        "p_mcnemar_exact": mcnemar_exact(fixed, broken),
        "p_mcnemar_mid": mcnemar_mid(fixed, broken),
        "p_permutation": sign_flip_counts(units.sums),
    }
    if len(units) == n:
        analysis |= {"p": analysis["p_mcnemar_mid"], "p_method": "McNemar mid-p"}
        notes = _limits(x, y, units, level, smallest=0.5 ** (fixed + broken))
        low, high = tango_interval(fixed, broken, n, level)
        method = "Tango score"
    else:
        analysis |= {"p": analysis["p_permutation"], "p_method": "sign-flip by cluster, exact"}
        notes = _limits(x, y, units, level, _smallest_flip(units))
        if units.alike:  # no spread to estimate: as if the items of a cluster were one and the same
            pairs = len(units) / n
            low, high = tango_interval(fixed * pairs, broken * pairs, len(units), level)
            method = "Tango score, one pair a cluster"
            notes.append(
                "The clusters do not differ from each other, so the interval counts each as one pair."
            )
        else:
            low, high = np.clip(units.t_interval(level), -1.0, 1.0).tolist()
            method = "cluster-robust t"
    return analysis | {"low": low, "high": high, "interval_method": method, "note": " ".join(notes)}


def _margin(x: np.ndarray, y: np.ndarray, units: Units, level: float, seed: int) -> dict[str, Any]:
    clustered = len(units) < len(x)
    p, exact = sign_flip(units.sums, seed)
    draws = "exact" if exact else f"{DRAWS:,} draws"
    analysis: dict[str, Any] = {
        "low": nan,
        "high": nan,
        "interval_method": "none",
        "p": p,
        "p_method": f"sign-flip{' by cluster' if clustered else ''}, {draws}",
        "p_permutation": p,
    }
    notes = _limits(x, y, units, level, _smallest_flip(units))
    if units.alike:
        notes.append("Without a spread there is no interval.")
    else:
        analysis["low"], analysis["high"] = units.t_interval(level)
        analysis["interval_method"] = "cluster-robust t" if clustered else "Student t"
        notes += _coverage(units)
        if len(units) < BOOTSTRAP_UNITS:
            notes.append(f"The bootstrap needs {BOOTSTRAP_UNITS} {'clusters' if clustered else 'items'}.")
        else:
            analysis["bootstrap_low"], analysis["bootstrap_high"] = bootstrap_interval(units, level, seed)
    return analysis | {"note": " ".join(notes)}


def _coverage(units: Units) -> list[str]:
    """Whether simulations show that the t interval of such changes covers less often than it says."""
    apart = units.sums - units.sizes * units.mean
    apart = apart / np.abs(apart).max()  # third powers of very small numbers would vanish
    skewness = float(np.mean(apart**3) / np.mean(apart**2) ** 1.5)
    if len(units) < FEW_SKEWED and abs(skewness) > 1:
        return [
            "The changes are few and skewed: in simulations such an interval covers less often than it says "
            "(90 to 93 % for 95 %), and the test rejects more often (6 to 9 % for 5 %)."
        ]
    return []


def _smallest_flip(units: Units) -> float:
    return min(1.0, 2.0 ** (1 - np.count_nonzero(units.sums)))


def _limits(x: np.ndarray, y: np.ndarray, units: Units, level: float, smallest: float) -> list[str]:
    """What tiny or constant data cannot show, in at most one sentence."""
    noun = "items" if len(units) == len(x) else "clusters"
    if not len(x):
        return ["There are no items."]
    if np.array_equal(x, y):
        return ["Nothing changed: every difference is zero."]
    if len(units) == 1:
        return [f"There is only one {noun[:-1]}, which says nothing about others."]
    if smallest > 1 - level:
        differ = f"Only {np.count_nonzero(units.sums)} of {len(units)} {noun} differ"
        return [f"{differ}: no p-value below {smallest:.2g} was possible."]
    if units.alike:
        return ["Every difference is the same."]
    return []
