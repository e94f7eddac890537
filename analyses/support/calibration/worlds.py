"""Simulated data of a study: changes of answers and of margins, in clips of several items, with known truth.

Everything is drawn for all replicates at once and summed over each clip, because every procedure for
clustered items is a function of the clips' sums and sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

__all__ = [
    "SHAPES",
    "SHARED",
    "AnswerWorld",
    "MarginWorld",
    "blocks",
    "clip_labels",
    "clip_sizes",
    "clip_sums",
    "correlated",
    "shared_blocks",
    "tables",
]

BLOCK = 4_000_000  # numbers in memory at once

SHARED = 25
"""Replicates that share resamples and sign patterns, so that these are matrix products. With 499 of them,
sharing adds 0.0097^2 / 400 to the variance of a rate of 5 % over 10,000 replicates, a twentieth of it."""

SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "skewed": lambda rng, size: rng.standard_exponential(size) - 1.0,
    "heavy": lambda rng, size: rng.standard_t(5, size) / np.sqrt(5 / 3),
    "sparse": lambda rng, size: rng.standard_normal(size) * (rng.random(size) < 0.2) / np.sqrt(0.2),
}
"""Distributions of a change with mean 0 and standard deviation 1. ``sparse``: four of five items do not
change, as where the model is already sure."""


def blocks(replicates: int, numbers: int) -> Iterator[int]:
    """Sizes of blocks of replicates, each of which draws at most `BLOCK` numbers.

    Args:
        replicates: number of replicates.
        numbers: how many numbers a replicate draws.
    """
    rows = max(1, BLOCK // numbers)
    for start in range(0, replicates, rows):
        yield min(rows, replicates - start)


def shared_blocks(replicates: int) -> Iterator[tuple[int, int]]:
    """Seed and size of each block of replicates that share their resamples and sign patterns."""
    for number, start in enumerate(range(0, replicates, SHARED)):
        yield number, min(SHARED, replicates - start)


def clip_sizes(clips: int, items: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Number of items of each clip, uniform between the two ends: int ``[clips]``."""
    return rng.integers(items[0], items[1] + 1, clips)


def clip_labels(sizes: np.ndarray) -> np.ndarray:
    """The clip of each item, as text that sorts as the clips do; the package numbers clusters by text."""
    return np.repeat([f"{clip:05d}" for clip in range(len(sizes))], sizes)


def clip_sums(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Sums over each clip's items: ``[replicates, clips, ...]`` from ``[replicates, items, ...]``."""
    if (sizes == 1).all():
        return values
    return np.add.reduceat(values, np.r_[0, np.cumsum(sizes)[:-1]], axis=1)


def _shared(
    draw: Callable[[tuple[int, ...]], np.ndarray], sizes: np.ndarray, replicates: int, correlation: float
) -> np.ndarray:
    """Numbers ``[replicates, items]``, of which those of a clip have the given correlation."""
    alone = draw((replicates, int(sizes.sum())))
    if correlation == 0:
        return alone
    clip = np.repeat(draw((replicates, len(sizes))), sizes, axis=1)
    return np.sqrt(correlation) * clip + np.sqrt(1 - correlation) * alone


def correlated(
    shape: str,
    sizes: np.ndarray,
    columns: int,
    replicates: int,
    rng: np.random.Generator,
    between: float = 0.9,
    within: float = 0.3,
) -> np.ndarray:
    """Changes ``[replicates, items, columns]`` with mean 0 and standard deviation 1.

    Args:
        shape: distribution, one of `SHAPES`.
        sizes: number of items of each clip.
        columns: number of columns, for example overlapping windows of layers.
        replicates: number of data sets.
        rng: generator.
        between: correlation of neighbouring columns.
        within: correlation of the items of a clip.
    """

    def rows(count: int) -> np.ndarray:
        values = SHAPES[shape](rng, (replicates, count, columns))
        for column in range(1, columns):
            values[..., column] *= np.sqrt(1 - between**2)
            values[..., column] += between * values[..., column - 1]
        return values

    alone = rows(int(sizes.sum()))
    if within == 0:
        return alone
    return np.sqrt(within) * np.repeat(rows(len(sizes)), sizes, axis=1) + np.sqrt(1 - within) * alone


def tables(sums: np.ndarray) -> np.ndarray:
    """Sums ``[replicates, clips, columns]`` as one table of columns, ``[clips, replicates * columns]``."""
    return np.moveaxis(sums, 1, 0).reshape(sums.shape[1], -1)


@dataclass(frozen=True)
class AnswerWorld:
    """Answers that are fixed or broken with given chances.

    A latent normal number decides about each item; those of a clip are correlated, so that a clip's answers
    tend to change together and in the same direction.

    Attributes:
        clips: number of clips.
        items: smallest and largest number of items of a clip.
        fixed, broken: chance that an item is wrong before and right after, and the reverse.
        correlation: of the latent numbers of a clip's items, 0 to 1.
    """

    clips: int
    items: tuple[int, int]
    fixed: float
    broken: float
    correlation: float = 0.0

    @property
    def difference(self) -> float:
        """The true change of accuracy."""
        return self.fixed - self.broken

    def draw(
        self, sizes: np.ndarray, replicates: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of fixed and of broken items of each clip: two arrays ``[replicates, clips]``."""
        latent = _shared(rng.standard_normal, sizes, replicates, self.correlation)
        fixed = (latent < norm.ppf(self.fixed)).astype(np.int32)
        broken = (latent > norm.isf(self.broken)).astype(np.int32)
        return clip_sums(fixed, sizes), clip_sums(broken, sizes)


@dataclass(frozen=True)
class MarginWorld:
    """Changes of a margin, in units of their standard deviation.

    Attributes:
        clips: number of clips.
        items: smallest and largest number of items of a clip.
        shape: distribution, one of `SHAPES`.
        mean: true mean change.
        correlation: of the changes of a clip's items.
    """

    clips: int
    items: tuple[int, int]
    shape: str
    mean: float = 0.0
    correlation: float = 0.0

    def draw(self, sizes: np.ndarray, replicates: int, rng: np.random.Generator) -> np.ndarray:
        """The changes, ``[replicates, items]``."""
        shape = SHAPES[self.shape]
        return self.mean + _shared(lambda size: shape(rng, size), sizes, replicates, self.correlation)
