"""Many configurations on the same items: max-T, Romano-Wolf, Holm, Benjamini-Hochberg, simultaneous bands."""

from __future__ import annotations

import numpy as np

from mata_interp.statistics import benjamini_hochberg, holm, max_t, romano_wolf, simultaneous_band
from mata_interp.statistics.clusters import resampled_counts
from mata_interp.statistics.max_t import EXACT_CLUSTERS, adjusted_p, flipped_t, resampled_t, sign_patterns
from mata_interp.statistics.simultaneous import largest_deviations, mean_and_error

from .bootstraps import sign_flip_p
from .rows import Row, row
from .worlds import clip_labels, clip_sizes, clip_sums, correlated, shared_blocks, tables

__all__ = ["band", "sweep"]

DRAWS = 499  # sign patterns and resamples; the package uses 9,999, and 2,000 for bands
SKEWED = "the changes are skewed, which sign flips assume they are not: romano_wolf is for these"
FLIPS = 1999  # sign patterns of each single test: Holm's correction for 26 tests needs small p-values


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
    p: dict[str, list[np.ndarray]] = {"max_t": [], "romano_wolf": [], "holm": [], "bh": []}
    for seed, count in shared_blocks(replicates):
        changes = correlated(shape, sizes, configurations, count, rng)
        changes[..., :effects] += size
        if answers:
            changes = np.sign(changes) * (np.abs(changes) > 1.3)
        sums = clip_sums(changes, sizes)
        p["max_t"].append(max_t_p(sums, sizes, seed))
        p["romano_wolf"].append(romano_wolf_p(sums, sizes, seed))
        each = sign_flip_p(np.moveaxis(sums, 1, 2).reshape(-1, clips), FLIPS, rng).reshape(count, -1)
        p["holm"].append(np.array([holm(one) for one in each]))
        p["bh"].append(np.array([benjamini_hochberg(one) for one in each]))
        if seed == 0:
            _compare(changes[0], sizes, p)
    rejected = {name: np.concatenate(values) <= 0.05 for name, values in p.items()}
    return _family_rows(cell, rejected, effects, clips <= EXACT_CLUSTERS, SKEWED if shape == "skewed" else "")


def max_t_p(sums: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    """p-values ``[R, k]`` of `max_t` in each data set of sums ``[R, clips, k]``, the same signs in all."""
    table, m = tables(sums), sizes.astype(float)
    patterns, exact = sign_patterns(len(sizes), DRAWS, seed, table.shape[1])
    observed = flipped_t(np.ones((1, len(sizes))), table, m)[0]
    drawn = np.concatenate([flipped_t(signs, table, m) for signs in patterns])
    return _stepped_down(observed, drawn, sums.shape, counted=not exact)


def romano_wolf_p(sums: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    """p-values ``[R, k]`` of `romano_wolf` in each data set, the same resamples in all."""
    table, m = tables(sums), sizes.astype(float)
    observed, blocks = resampled_t(table, m, DRAWS, seed)
    return _stepped_down(np.abs(observed), np.concatenate(list(blocks)), sums.shape, counted=True)


def _stepped_down(
    observed: np.ndarray, drawn: np.ndarray, shape: tuple[int, ...], counted: bool
) -> np.ndarray:
    """`adjusted_p` of each data set from statistics ``[R * k]`` and ``[D, R * k]``."""
    here, there = observed.reshape(shape[0], shape[2]), drawn.reshape(len(drawn), shape[0], shape[2])
    return np.array([adjusted_p(here[r], [there[:, r]], counted)[0] for r in range(shape[0])])


def _compare(changes: np.ndarray, sizes: np.ndarray, p: dict[str, list[np.ndarray]]) -> None:
    """Raise if the first data set has other p-values than the package's functions with the same seed."""
    labels = clip_labels(sizes)
    np.testing.assert_allclose(p["max_t"][0][0], max_t(changes, labels, DRAWS, seed=0).p, atol=1e-12)
    np.testing.assert_allclose(
        p["romano_wolf"][0][0], romano_wolf(changes, labels, DRAWS, seed=0).p, atol=1e-12
    )


def _family_rows(
    cell: str, rejected: dict[str, np.ndarray], effects: int, exact: bool, skewed: str
) -> list[Row]:
    names = {"max_t": f"max_t ({'exact' if exact else 'drawn signs'})", "romano_wolf": "romano_wolf"}
    names |= {"holm": "holm of sign flips", "bh": "benjamini_hochberg of sign flips"}
    rows = []
    for name, label in names.items():
        wrong = rejected[name][:, effects:]
        if name == "bh":
            discoveries = rejected[name].sum(1)
            rows.append(row(cell, label, "false discovery rate", wrong.sum(1) / np.maximum(discoveries, 1)))
        else:
            note = skewed if name == "max_t" else ""
            rows.append(row(cell, label, "family-wise error", np.asarray(wrong.any(1)), note))
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
    both, lower = [], []
    for seed, count in shared_blocks(replicates):
        values = correlated(shape, sizes, columns, count, rng)
        low, high, lowest = band_ends(clip_sums(values, sizes), sizes, seed)
        both.append(((low <= 0) & (high >= 0)).all(1))
        lower.append((lowest <= 0).all(1))
        if seed == 0:
            reference = simultaneous_band(values[0], clip_labels(sizes), draws=DRAWS, seed=0)
            np.testing.assert_allclose([low[0], high[0]], [reference.low, reference.high], atol=1e-10)
    return [
        row(cell, "simultaneous_band", "coverage", np.concatenate(both)),
        row(cell, "simultaneous_band, lower bounds", "one-sided coverage", np.concatenate(lower)),
    ]


def band_ends(sums: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends of `simultaneous_band` and its lower bounds, ``[R, k]`` each, from sums ``[R, clips, k]``."""
    table, m = tables(sums), sizes.astype(float)
    shape = sums.shape[0], sums.shape[2]
    mean, se = (part.reshape(shape) for part in mean_and_error(np.ones((1, len(sizes))), table, m))
    two_sided, one_sided = [], []
    for counts in resampled_counts(len(sizes), DRAWS, seed, table.shape[1]):
        means, errors = (part.reshape(-1, *shape) for part in mean_and_error(counts, table, m))
        two, one = largest_deviations(means - mean, errors, se)
        two_sided.append(two)
        one_sided.append(one)
    critical, upper = (np.quantile(np.concatenate(part), 0.95, axis=0) for part in (two_sided, one_sided))
    radius = critical[:, None] * se
    return mean - radius, mean + radius, mean - upper[:, None] * se
