"""Correction for having tested more than one hypothesis."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["holm"]


def holm(pvalues: ArrayLike) -> np.ndarray:
    """Holm's step-down adjustment, in the order given.

    The adjusted values keep the chance of even one false rejection below the level, however the
    tests depend on each other (Holm 1979, Scand J Stat 6:65).

    Args:
        pvalues: the p-values of one family of hypotheses, shape ``[m]``; may be empty.

    Raises:
        ValueError: a p-value is missing or outside 0 to 1.
    """
    p = np.asarray(pvalues, dtype=float)
    if p.ndim != 1:
        raise ValueError(f"p-values must be one-dimensional, got shape {p.shape}")
    if not ((p >= 0) & (p <= 1)).all():  # false for NaN as well
        raise ValueError(f"p-values must lie between 0 and 1, got {p.tolist()}")
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)  # the smallest counts m times, the largest once
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted
