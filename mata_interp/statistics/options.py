"""From the scores of answer options to a choice, and to how clear that choice is.

All functions take scores ``[..., C]`` over C options (NaN where an item has fewer) and the index of the
right option, ``[...]`` or anything that broadcasts to it, negative where it is not known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["best_option", "is_correct", "margin"]


def best_option(scores: ArrayLike) -> np.ndarray:
    """Index of the option with the highest score, the first of equals: int ``[...]``.

    Args:
        scores: Score of each option, e.g. its log-probability, ``[..., C]``; NaN where there is none.

    >>> best_option([[-1.0, -2.0, np.nan]]).tolist()
    [0]
    """
    values = np.asarray(scores, dtype=float)
    return np.where(np.isnan(values), -np.inf, values).argmax(-1)


def is_correct(scores: ArrayLike, answer: ArrayLike) -> np.ndarray:
    """Whether the right option has the highest score: bool ``[...]``, False where it is not known.

    Args:
        scores: Score of each option, ``[..., C]``; NaN where there is none.
        answer: Index of the right option, ``[...]``; negative where it is not known.

    >>> is_correct([[-1.0, -2.0], [-1.0, -2.0]], [0, 1]).tolist()
    [True, False]
    """
    return best_option(scores) == np.asarray(answer)


def margin(scores: ArrayLike, answer: ArrayLike) -> np.ndarray:
    """Score of the right option minus the highest score of the others, ``[...]``.

    For log-probabilities it is in nats, positive where the right option is chosen; NaN where all are -inf.

    Args:
        scores: Score of each option, ``[..., C]``; NaN where there is none.
        answer: Index of the right option, ``[...]``; negative where it is not known, and the margin then NaN.

    >>> margin([-1.0, -3.0, -2.5], 0).item()
    1.5
    """
    values = np.asarray(scores, dtype=float)
    index = np.broadcast_to(np.asarray(answer), values.shape[:-1])
    known = index >= 0
    right = np.where(known, index, 0)[..., None]
    wrong = np.where((np.arange(values.shape[-1]) == right) | np.isnan(values), -np.inf, values)
    with np.errstate(invalid="ignore"):  # methods may drop options altogether: -inf minus -inf is NaN
        difference = np.take_along_axis(values, right, -1)[..., 0] - wrong.max(-1)
    return np.where(known, difference, np.nan)
