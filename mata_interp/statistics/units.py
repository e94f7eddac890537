"""The independent units behind paired differences, and the interval of the mean they allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import t

from .clusters import cluster_codes

__all__ = ["Units", "freedom_of"]


def freedom_of(sizes: np.ndarray) -> np.ndarray:
    """Degrees of freedom of the CR2 standard error of a mean: G - 1 for G units of one size, else fewer.

    Satterthwaite's approximation (Bell and McCaffrey 2002, Survey Methodology 28:169): the squared standard
    error is a quadratic form S' M S of the units' sums S, and for independent items, whose sums have
    variances m_g, the degrees of freedom are (sum m_g M_gg)^2 / sum m_g m_h M_gh^2.

    Args:
        sizes: number of items of each unit, ``[..., G]``, at least two of them above 0; a unit of 0 items
            changes nothing.

    Returns:
        The degrees of freedom, ``[...]``.

    >>> freedom_of(np.array([3, 3, 3, 3])).round(6).item(), freedom_of(np.array([9, 1, 1, 1])).item() < 2
    (3.0, True)
    """
    m = np.asarray(sizes, dtype=float)
    total = m.sum(-1, keepdims=True)
    share = m / total
    c = 1 / (1 - share)
    a = c * share
    k = (a * share).sum(-1, keepdims=True)  # M_gh = (g is h) c_g - a_g - a_h + k
    half = k / 2 - a
    squares = 2 * total[..., 0] * (m * half**2).sum(-1) + 2 * (m * half).sum(-1) ** 2
    squares = squares + (m**2 * (c**2 + 2 * c * (k - 2 * a))).sum(-1)
    return (m * (c - 2 * a + k)).sum(-1) ** 2 / squares


@dataclass(frozen=True)
class Units:
    """Differences summed within each independent unit: a cluster of items, or a single item.

    Units are sorted by sum and size, so that no result depends on the order of the items or on the names of
    the clusters.

    Attributes:
        sums: Sum of the differences of each unit, ``[G]``.
        sizes: Number of items in each unit, ``[G]``.
    """

    sums: np.ndarray
    sizes: np.ndarray

    @classmethod
    def gather(cls, differences: np.ndarray, clusters: Iterable | None) -> Units:
        """Differences ``[n]`` and the cluster each belongs to (any hashable labels; None: each its own)."""
        codes = np.arange(len(differences)) if clusters is None else cluster_codes(clusters)[0]
        ascending = np.argsort(differences, kind="stable")  # equal sums to the last bit, whatever came first
        sums = np.bincount(codes[ascending], weights=differences[ascending])
        sizes = np.bincount(codes)
        order = np.lexsort((sizes, sums))
        return cls(sums[order], sizes[order])

    def __len__(self) -> int:
        return len(self.sums)

    @property
    def mean(self) -> float:
        """The mean difference over items (not over units)."""
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def alike(self) -> bool:
        """Whether the units' own means all agree (or there is at most one): no spread to estimate."""
        if len(self) < 2:
            return True
        means = self.sums / self.sizes
        return bool(np.ptp(means) <= 1e-12 * np.abs(means).max())

    def standard_error(self) -> float:
        """Cluster-robust standard error of the mean over items; the plain one where units are items.

        With u_g the sum over unit g of (difference - mean), m_g its size and n items, the variance is
        sum(u_g^2 / (1 - m_g / n)) / n^2: the CR2 sandwich of Bell and McCaffrey (2002, Survey Methodology
        28:169), for a mean alone. It is unbiased where items are independent. With G units of one size it is
        G / (G - 1) * sum(u_g^2) / n^2, as Liang and Zeger's (1986, Biometrika 73:13) with its usual factor.
        """
        n = float(self.sizes.sum())
        u = self.sums - self.sizes * self.mean
        return sqrt(float((u / (1 - self.sizes / n)) @ u)) / n

    def freedom(self) -> float:
        """Degrees of freedom of `standard_error`, from `freedom_of`."""
        return float(freedom_of(self.sizes))

    def t_interval(self, level: float) -> tuple[float, float]:
        """``(low, high)``: mean -+ t * `standard_error`, with t's degrees of freedom from `freedom`."""
        radius = float(t.ppf((1 + level) / 2, self.freedom())) * self.standard_error()
        return self.mean - radius, self.mean + radius
