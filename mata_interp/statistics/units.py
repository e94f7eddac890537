"""The independent units behind paired differences, and the interval of the mean they allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import t

from .clusters import cluster_codes

__all__ = ["Units"]


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

        With u_g the sum over unit g of (difference - mean), G units and n items, the variance is
        G / (G - 1) * sum(u_g^2) / n^2: the CR1 sandwich of Liang & Zeger (1986, Biometrika 73:13) with
        its usual small-sample factor (Cameron & Miller 2015, J Hum Resour 50:317), for a mean alone.
        """
        u = self.sums - self.sizes * self.mean
        return sqrt(len(self) / (len(self) - 1) * float(u @ u)) / float(self.sizes.sum())

    def t_interval(self, level: float) -> tuple[float, float]:
        """``(low, high)``: mean -+ t * standard error, t with G - 1 degrees of freedom."""
        radius = float(t.ppf((1 + level) / 2, len(self) - 1)) * self.standard_error()
        return self.mean - radius, self.mean + radius
