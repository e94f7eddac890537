"""Correction for testing more than one hypothesis."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.multitest import multipletests

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
    return _adjusted(pvalues, "holm")


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
    return _adjusted(pvalues, "fdr_bh")


def _adjusted(pvalues: ArrayLike, method: str) -> np.ndarray:
    p = np.asarray(pvalues, dtype=float)
    if p.ndim != 1:
        raise ArgumentError(f"p-values must be one-dimensional, got shape {p.shape}")
    if not ((p >= 0) & (p <= 1)).all():  # False for NaN as well
        raise ArgumentError(f"p-values must lie between 0 and 1, got {p.tolist()}")
    return np.asarray(multipletests(p, method=method)[1]) if len(p) else p.copy()
