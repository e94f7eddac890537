"""Changes of margins: Student's and cluster-robust t, sign flips, Wilcoxon, bootstraps, non-inferiority."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import t as student

from mata_interp.statistics import no_harm, paired_effect, wilcoxon_p
from mata_interp.statistics.paired import BOOTSTRAP_UNITS
from mata_interp.statistics.resampling import EXACT_UNITS

from .bootstraps import (
    bootstrap_intervals,
    exact_flip_p,
    freedom,
    mean_and_se,
    plain_t_interval,
    sign_flip_p,
    t_interval,
)
from .rows import Row, row
from .worlds import MarginWorld, clip_sizes, clip_sums

__all__ = ["DRAWS", "margins"]

DRAWS = 999  # of sign flips and bootstraps; the package uses 20,000 and 9,999
BLOCK = 200  # replicates that share their resamples
CHECKED = 3
WILCOXON = 1000  # replicates of its test; with zeros among few changes scipy enumerates, which takes too long
BOOTSTRAPS = 2000  # replicates of bootstrap intervals
RIVALS = ("CR1 t", "percentile", "BCa", "bootstrap-t", "smoothed")  # intervals that the package does not use
MARGIN = 0.1  # of the claim of non-inferiority, in standard deviations of an item's change
BESIDE = "not what the package tests or reports as its interval"


def margins(cell: str, replicates: int, rng: np.random.Generator, **settings: Any) -> list[Row]:
    """The rows of one `MarginWorld`.

    Args:
        cell: name of the cell.
        replicates: number of simulated studies.
        rng: generator of the data.
        settings: those of `MarginWorld`.
    """
    world = MarginWorld(**settings)
    sizes = clip_sizes(world.clips, world.items, rng)
    parts: list[dict[str, np.ndarray]] = []
    wilcoxon: list[bool] = []
    for start in range(0, replicates, BLOCK):
        changes = world.draw(sizes, min(BLOCK, replicates - start), rng)
        parts.append(_procedures(changes, sizes, world.mean, rng, start < BOOTSTRAPS))
        if start < WILCOXON and (sizes == 1).all() and not (world.shape == "sparse" and world.clips <= 13):
            wilcoxon += [wilcoxon_p(0 * each, each) <= 0.05 for each in changes]
        if start == 0:
            _compare(changes, sizes)
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _rows(cell, world, values, np.array(wilcoxon))


def _procedures(
    changes: np.ndarray, sizes: np.ndarray, truth: float, rng: np.random.Generator, bootstrap: bool
) -> dict[str, np.ndarray]:
    """Whether each test rejects and each interval holds the truth, ``[R]`` each; NaN without bootstraps."""
    sums = clip_sums(changes, sizes)
    low, high = t_interval(sums, sizes)
    mean, se = mean_and_se(sums, sizes)
    some = np.maximum(se, 1e-300)
    values: dict[str, np.ndarray] = {
        "t": (low <= truth) & (truth <= high),
        "t rejects": (low > 0) | (high < 0),
        "non-inferior": student.sf((mean + MARGIN) / some, freedom(sizes)) < 0.05,
    }
    rivals = {"CR1 t": plain_t_interval(sums, sizes)}
    if bootstrap:
        rivals |= bootstrap_intervals(sums, sizes, DRAWS, rng)
    for name, (lower, upper) in rivals.items():
        values[name] = (lower <= truth) & (truth <= upper)
    for name in {"symmetric bootstrap-t", *RIVALS} - set(values):
        values[name] = np.full(len(mean), np.nan)
    exact = len(sizes) <= EXACT_UNITS
    p = exact_flip_p(sums) if exact else sign_flip_p(sums, DRAWS, rng)
    values = {name: value.astype(float) for name, value in values.items()} | {"sign flip": p <= 0.05}
    alike = se == 0  # nothing changed: there is no interval and no claim, and p is 1
    for name in values.keys() - {"sign flip", "t rejects", "non-inferior"}:
        values[name][alike] = np.nan
    values["non-inferior"][alike] = 0.0
    return values


def _compare(changes: np.ndarray, sizes: np.ndarray) -> None:
    """Raise if t interval or claim differ from the package on the same items."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    low, high = t_interval(clip_sums(changes, sizes), sizes)
    moving = np.flatnonzero(changes.any(1))  # where nothing changes there is no interval
    for r in moving[:CHECKED]:
        before = np.zeros(changes.shape[1])
        effect = paired_effect(before, changes[r], "margin", clusters=labels)
        np.testing.assert_allclose([low[r], high[r]], [effect.low, effect.high], atol=1e-9)
        mean, se = (each[r] for each in mean_and_se(clip_sums(changes, sizes), sizes))
        p = float(student.sf((mean + MARGIN) / se, freedom(sizes)))
        claim = no_harm(before, changes[r], MARGIN, "margin", clusters=labels)
        np.testing.assert_allclose(p, claim.p_inferior, atol=1e-9)


def _rows(cell: str, world: MarginWorld, values: dict[str, np.ndarray], wilcoxon: np.ndarray) -> list[Row]:
    null = world.mean == 0
    quantity = "type I error" if null else "power"
    symmetric = world.shape != "skewed"
    skewed = "" if symmetric else "the changes are skewed, which the test assumes they are not"
    few = "" if world.clips >= BOOTSTRAP_UNITS else f"not reported below {BOOTSTRAP_UNITS} items or clips"
    rows = [
        row(cell, "sign flips (paired_effect)", quantity, values["sign flip"], skewed),
        row(cell, "t interval (paired_effect)", "coverage", values["t"]),
        row(cell, "t interval excludes 0", quantity, values["t rejects"], BESIDE, False),
        row(
            cell, "symmetric bootstrap-t (beside it in paired_effect)", "coverage",
            values["symmetric bootstrap-t"], few, not few,
        ),
    ]  # fmt: skip
    for name in RIVALS:
        rows.append(row(cell, name, "coverage", values[name], BESIDE, False))
    if len(wilcoxon):
        note = skewed or "tests symmetry about 0"
        rows.append(row(cell, "Wilcoxon (wilcoxon_p)", quantity, wilcoxon, note, symmetric))
    harm = world.mean <= -MARGIN
    kind = "type I error" if harm else "power"
    rows.append(row(cell, "non-inferiority at 0.1 sd (no_harm)", kind, values["non-inferior"]))
    return rows
