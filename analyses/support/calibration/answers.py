"""Answers before and after: McNemar, sign flips, Tango's and cluster-robust intervals, claims of no harm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from mata_interp.statistics import (
    mcnemar_exact,
    mcnemar_mid,
    no_harm,
    odds_ratio,
    paired_effect,
    tango_interval,
)
from mata_interp.statistics.proportions import tango_score
from mata_interp.statistics.resampling import sign_flip_counts

from .bootstraps import freedom, mean_and_se, t_interval
from .rows import Row, row
from .worlds import AnswerWorld, blocks, clip_sizes

__all__ = ["answers"]

LEAST_DISCORDANT = 20  # expected number of discordant pairs from which intervals have to cover
SIGN_FLIPS = 2000  # replicates of a block with clips of several items that are tested by sign flips
CHECKED = 20  # replicates of each cell that are compared with the package's own functions
MARGIN = 0.05
IGNORES = "takes items for independent; the package does not report it for clips of several items"


def answers(cell: str, replicates: int, rng: np.random.Generator, **settings: Any) -> list[Row]:
    """The rows of one `AnswerWorld`.

    Args:
        cell: name of the cell.
        replicates: number of simulated studies.
        rng: generator of the data.
        settings: those of `AnswerWorld`.
    """
    world = AnswerWorld(**settings)
    sizes = clip_sizes(world.clips, world.items, rng)
    parts: list[dict[str, np.ndarray]] = []
    for block in blocks(replicates, int(sizes.sum())):
        fixed, broken = world.draw(sizes, block, rng)
        parts.append(_procedures(fixed, broken, sizes))
        if len(parts) == 1:
            _compare(fixed, broken, sizes, parts[0])
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _rows(cell, world, sizes, values)


def _by_counts(function: Callable[[int, int], Any], fixed: np.ndarray, broken: np.ndarray) -> np.ndarray:
    """A function of two counts for all replicates, computed once for each pair: ``[R, ...]``."""
    pairs, place = np.unique(np.stack([fixed, broken], 1), axis=0, return_inverse=True)
    return np.array([function(int(f), int(b)) for f, b in pairs], dtype=float)[place.ravel()]


def _procedures(fixed: np.ndarray, broken: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """p-values and ends of intervals of every procedure, ``[R]`` each, from counts ``[R, clips]``."""
    n = int(sizes.sum())
    f, b, sums = fixed.sum(1), broken.sum(1), (fixed - broken).astype(float)
    tango = _by_counts(lambda x, y: tango_interval(x, y, n), f, b)
    odds = _by_counts(lambda x, y: odds_ratio(x, y)[1:], f, b)
    values = {
        "exact": _by_counts(mcnemar_exact, f, b),
        "mid": _by_counts(mcnemar_mid, f, b),
        "tango low": tango[:, 0],
        "tango high": tango[:, 1],
        "odds low": odds[:, 0],
        "odds high": odds[:, 1],
    }
    if (sizes == 1).all():
        values |= {"p": values["mid"], "low": tango[:, 0], "high": tango[:, 1]}
        values["inferior"] = norm.sf(_by_counts(lambda x, y: tango_score(x, y, n, -MARGIN), f, b))
        values["superior"] = norm.cdf(_by_counts(lambda x, y: tango_score(x, y, n, MARGIN), f, b))
        return values
    values["p"] = np.full(len(sums), np.nan)  # the first replicates alone: it is slow
    values["p"][:SIGN_FLIPS] = [sign_flip_counts(each) for each in sums[:SIGN_FLIPS]]
    low, high = (np.clip(end, -1, 1) for end in t_interval(sums, sizes))
    alike = np.ptp(sums / sizes, axis=1) == 0
    for r in np.flatnonzero(alike):  # as the package: each clip counts as one pair
        share = len(sizes) / n
        low[r], high[r] = tango_interval(f[r] * share, b[r] * share, len(sizes))
    mean, se = mean_and_se(sums, sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        inferior = student.sf((mean + MARGIN) / se, freedom(sizes))
        superior = student.cdf((mean - MARGIN) / se, freedom(sizes))
    inferior[alike], superior[alike] = 1.0, 1.0  # no spread: the claim is not made
    return values | {"low": low, "high": high, "inferior": inferior, "superior": superior}


def _compare(fixed: np.ndarray, broken: np.ndarray, sizes: np.ndarray, fast: dict[str, np.ndarray]) -> None:
    """Raise if a replicate differs from `paired_effect` or `no_harm` on the same items."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for r in range(min(CHECKED, len(fixed))):
        change = np.concatenate(
            [
                np.r_[np.ones(f), -np.ones(b), np.zeros(size - f - b)]
                for f, b, size in zip(fixed[r], broken[r], sizes, strict=True)
            ]
        )
        before = (change < 0).astype(float)
        effect = paired_effect(before, before + change, clusters=labels)
        claim = no_harm(before, before + change, MARGIN, clusters=labels)
        here = [fast[name][r] for name in ("p", "low", "high")]
        np.testing.assert_allclose(here, [effect.p, effect.low, effect.high], atol=1e-9)
        if claim.method != "none":
            here = [fast[name][r] for name in ("inferior", "superior")]
            np.testing.assert_allclose(here, [claim.p_inferior, claim.p_superior], atol=1e-9)


def _rows(cell: str, world: AnswerWorld, sizes: np.ndarray, values: dict[str, np.ndarray]) -> list[Row]:
    truth, single = world.difference, bool((sizes == 1).all())
    discordant = sizes.sum() * (world.fixed + world.broken)
    enough = discordant >= LEAST_DISCORDANT
    few = "" if enough else f"{discordant:.0f} expected discordant pairs, fewer than {LEAST_DISCORDANT}"
    ignores = "" if single else IGNORES
    quantity = "type I error" if truth == 0 else "power"
    test = "McNemar mid-p (paired_effect)" if single else "sign flips of clips (paired_effect)"
    interval = "Tango (paired_effect)" if single else "cluster-robust t (paired_effect)"
    rows = [
        row(cell, "McNemar exact", quantity, values["exact"] <= 0.05, ignores, single),
        row(cell, test, quantity, np.where(np.isnan(values["p"]), np.nan, values["p"] <= 0.05)),
        row(cell, interval, "coverage", _holds(values, "low", "high", truth), few, enough),
    ]
    if not single:
        rows += [
            row(cell, "McNemar mid-p", quantity, values["mid"] <= 0.05, ignores, False),
            row(cell, "Tango", "coverage", _holds(values, "tango low", "tango high", truth), ignores, False),
        ]
    elif world.broken > 0:
        covered = _holds(values, "odds low", "odds high", world.fixed / world.broken)
        rows.append(row(cell, "odds ratio of flips", "coverage", covered, few, enough))
    return rows + _claims(cell, truth, values)


def _claims(cell: str, truth: float, values: dict[str, np.ndarray]) -> list[Row]:
    """Claims of no harm: a wrong claim is an error, a right one is power."""
    claims = {
        "non-inferiority at 5 points (no_harm)": (values["inferior"] < 0.05, truth <= -MARGIN),
        "equivalence at 5 points (no_harm)": (
            np.maximum(values["inferior"], values["superior"]) < 0.05,
            abs(truth) >= MARGIN,
        ),
    }
    return [
        row(cell, name, "type I error" if wrong else "power", claimed)
        for name, (claimed, wrong) in claims.items()
    ]


def _holds(values: dict[str, np.ndarray], low: str, high: str, truth: float) -> np.ndarray:
    return (values[low] <= truth + 1e-12) & (truth - 1e-12 <= values[high])
