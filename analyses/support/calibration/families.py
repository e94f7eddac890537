"""Many configurations on the same items: max-T, Romano-Wolf, Holm, Benjamini-Hochberg, simultaneous bands."""

from __future__ import annotations

import numpy as np

from mata_interp.statistics import benjamini_hochberg, holm, max_t, romano_wolf, simultaneous_band
from mata_interp.statistics.max_t import EXACT_CLUSTERS

from .bootstraps import sign_flip_p
from .rows import Row, row
from .worlds import SHAPES, clip_sizes

__all__ = ["band", "sweep"]

DRAWS = 499  # sign patterns and resamples; the package uses 9,999, and 2,000 for bands


def _correlated(
    shape: str, sizes: np.ndarray, columns: int, between: float, within: float, rng: np.random.Generator
) -> np.ndarray:
    """Changes ``[items, columns]``: neighbouring columns (overlapping windows of layers) have the correlation
    ``between``, items of a clip ``within``."""
    draw = SHAPES[shape]

    def columns_of(rows: int) -> np.ndarray:
        values = draw(rng, (rows, columns))
        for column in range(1, columns):
            values[:, column] *= np.sqrt(1 - between**2)
            values[:, column] += between * values[:, column - 1]
        return values

    own = columns_of(int(sizes.sum()))
    clip = np.repeat(columns_of(len(sizes)), sizes, axis=0)
    return np.sqrt(within) * clip + np.sqrt(1 - within) * own


def sweep(
    cell: str,
    replicates: int,
    rng: np.random.Generator,
    *,
    clips: int,
    items: tuple[int, int],
    configurations: int,
    shape: str,
    effects: int = 0,
    size: float = 0.0,
    answers: bool = False,
) -> list[Row]:
    """Family-wise error, false discovery rate and power over the configurations of a sweep.

    Args:
        cell, replicates, rng: as in `answers`.
        clips, items, shape: as in `MarginWorld`.
        configurations: number of configurations; neighbours correlate 0.9, items of a clip 0.3.
        effects: how many of them, the first, have a true effect.
        size: that effect, in standard deviations of an item's change.
        answers: whether the changes are those of answers: only changes above 1.3 standard deviations in size
            (19 % of items) count, as 1 or -1.
    """
    sizes = clip_sizes(clips, items, rng)
    labels = np.repeat(np.arange(clips), sizes)
    p: dict[str, list[np.ndarray]] = {"max_t": [], "romano_wolf": [], "holm": [], "bh": []}
    for replicate in range(replicates):
        changes = _correlated(shape, sizes, configurations, 0.9, 0.3, rng)
        changes[:, :effects] += size
        if answers:
            changes = np.sign(changes) * (np.abs(changes) > 1.3)
        p["max_t"].append(max_t(changes, labels, DRAWS, seed=replicate).p)
        p["romano_wolf"].append(romano_wolf(changes, labels, DRAWS, seed=replicate).p)
        sums = np.stack([np.bincount(labels, column, clips) for column in changes.T])
        each = sign_flip_p(sums, 1999, rng)
        p["holm"].append(holm(each))
        p["bh"].append(benjamini_hochberg(each))
    rejected = {name: np.array(values) <= 0.05 for name, values in p.items()}
    return _family_rows(cell, rejected, effects, exact=clips <= EXACT_CLUSTERS)


def _family_rows(cell: str, rejected: dict[str, np.ndarray], effects: int, exact: bool) -> list[Row]:
    names = {"max_t": f"max_t ({'exact' if exact else 'drawn signs'})", "romano_wolf": "romano_wolf"}
    names |= {"holm": "holm of sign flips", "bh": "benjamini_hochberg of sign flips"}
    rows = []
    for name, label in names.items():
        wrong = rejected[name][:, effects:]
        if name == "bh":
            discoveries = rejected[name].sum(1)
            rows.append(row(cell, label, "false discovery rate", wrong.sum(1) / np.maximum(discoveries, 1)))
        else:
            rows.append(row(cell, label, "family-wise error", np.asarray(wrong.any(1))))
        if effects:
            rows.append(row(cell, label, "power", rejected[name][:, :effects].mean(1)))
    return rows


def band(
    cell: str,
    replicates: int,
    rng: np.random.Generator,
    *,
    clips: int,
    items: tuple[int, int],
    columns: int,
    shape: str,
) -> list[Row]:
    """Coverage of `simultaneous_band` over all columns at once, for example layers.

    Args:
        cell, replicates, rng: as in `answers`.
        clips, items, shape: as in `MarginWorld`.
        columns: number of means; neighbours correlate 0.9, items of a clip 0.3.
    """
    sizes = clip_sizes(clips, items, rng)
    labels = np.repeat(np.arange(clips), sizes)
    both, lower = np.zeros((2, replicates), bool)
    for replicate in range(replicates):
        found = simultaneous_band(
            _correlated(shape, sizes, columns, 0.9, 0.3, rng), labels, draws=DRAWS, seed=replicate
        )
        both[replicate] = ((found.low <= 0) & (found.high >= 0)).all()
        lower[replicate] = (found.mean - found.critical_one_sided * found.se <= 0).all()
    return [
        row(cell, "simultaneous_band", "coverage", both),
        row(cell, "simultaneous_band, lower bounds", "one-sided coverage", lower),
    ]
