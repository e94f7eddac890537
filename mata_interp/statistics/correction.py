"""Correction for testing more than one hypothesis.

The tests compare both with statsmodels, whose `multipletests` collects garbage in every call: milliseconds to
seconds beside a model, too long inside a simulation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ArgumentError

__all__ = ["benjamini_hochberg", "holm"]


def holm(pvalues: ArrayLike) -> np.ndarray:
    """Holm's step-down adjustment of the p-values of one family of hypotheses.

    The adjusted values control the family-wise error rate under any dependence between the tests (Holm 1979,
    Scand J Stat 6:65).

    Args:
        pvalues: p-values, ``[m]``; may be empty.

    Returns:
        The adjusted p-values in the same order, ``[m]``.

    Raises:
        ArgumentError: A p-value is NaN or outside 0 to 1, or the array is not one-dimensional.

    >>> holm([0.03, 0.01, 0.04]).round(6).tolist()
    [0.06, 0.03, 0.06]
    """
    p = _checked(pvalues)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return adjusted.clip(0, 1)


def benjamini_hochberg(pvalues: ArrayLike) -> np.ndarray:
    """Benjamini and Hochberg's adjustment: rejecting those below q keeps the false discovery rate at q.

    It holds for independent or positively dependent tests (Benjamini and Hochberg 1995, J R Stat Soc B
    57:289; Benjamini and Yekutieli 2001, Ann Stat 29:1165). It is for screening many configurations; for
    claims use `holm` or `max_t`, which control the chance of any false rejection.

    Args:
        pvalues: p-values, ``[m]``; may be empty.

    Returns:
        The adjusted p-values in the same order, ``[m]``.

    Raises:
        ArgumentError: A p-value is NaN or outside 0 to 1, or the array is not one-dimensional.

    >>> benjamini_hochberg([0.03, 0.01, 0.04]).round(6).tolist()
    [0.04, 0.03, 0.04]
    """
    p = _checked(pvalues)
    order = np.argsort(-p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    return adjusted.clip(0, 1)


def _checked(pvalues: ArrayLike) -> np.ndarray:
    p = np.asarray(pvalues, dtype=float)
    if p.ndim != 1:
        raise ArgumentError(f"p-values must be one-dimensional, got shape {p.shape}")
    if not ((p >= 0) & (p <= 1)).all():  # False for NaN as well
        raise ArgumentError(f"p-values must lie between 0 and 1, got {p.tolist()}")
    return p
