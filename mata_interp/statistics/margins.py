"""The margin: how far the right option is ahead of the best other one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["option_margins"]


def option_margins(logprob: ArrayLike, right: ArrayLike) -> np.ndarray:
    """Log-probability difference between the right option and the best wrong one, in nats.

    Args:
        logprob: [..., C], log p of each option; NaN where there is no option.
        right: [...] (or broadcastable to it), index of the right option; -1 where it is not known.

    Returns:
        float64 [...], NaN where the right option is not known.

    Example:
        >>> option_margins([[-1.0, -3.0, -2.5], [-1.0, -2.0, float("nan")]], [0, 1]).tolist()
        [1.5, -1.0]
    """
    values = np.asarray(logprob, dtype=np.float64)
    right = np.broadcast_to(np.asarray(right, dtype=int), values.shape[:-1])
    known = right >= 0
    index = np.where(known, right, 0)
    is_right = np.arange(values.shape[-1]) == index[..., None]
    best_wrong = np.where(is_right | np.isnan(values), -np.inf, values).max(-1)
    own = np.take_along_axis(values, index[..., None], -1)[..., 0]
    return np.where(known, own - best_wrong, np.nan)
