"""The response at every dose, with a band that holds for all doses together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ..wording import interval, number
from .palette import AUDIO, SOFT
from .scale import LABEL
from .tooltips import tip


def dose_response(
    alphas: Sequence[float], mean: np.ndarray, low: np.ndarray, high: np.ndarray, chosen: int, width: float
) -> Figure:
    """Draw the change ``mean`` [alpha], in nats, over evenly spaced alphas; ``chosen`` is marked.

    The first point is alpha 0, where the change is 0.
    """
    figure = Figure(figsize=(min(width, 5.2), 2.7))
    axes = figure.subplots()
    x = np.arange(len(alphas) + 1)
    middle, lower, upper = (np.concatenate([[0.0], part]) for part in (mean, low, high))
    axes.axhline(0, color=SOFT, linewidth=0.7, zorder=0)
    if np.isfinite(lower).all() and np.isfinite(upper).all():
        axes.fill_between(x, lower, upper, color=AUDIO, alpha=0.2, linewidth=0)
    axes.plot(x, middle, color=AUDIO, linewidth=1.4)
    dots = axes.scatter(x, middle, color=AUDIO, s=16, zorder=3, linewidths=0)
    texts = [
        f"alpha {alpha:g}: {number(value, 2, sign=True)} nats "
        f"{interval(a, b, lambda end: number(end, 2, sign=True))}"
        for alpha, value, a, b in zip([0, *alphas], middle, lower, upper, strict=True)
    ]
    tip(dots, *texts)
    ring = {"s": 90, "facecolors": "none", "edgecolors": SOFT, "linewidths": 1.2, "zorder": 4}
    axes.scatter([chosen + 1], [middle[chosen + 1]], **ring)
    axes.annotate(
        "chosen", (chosen + 1, middle[chosen + 1]), (-8, 4), textcoords="offset points", color=SOFT,
        ha="right", va="bottom", fontsize=7.5,
    )  # fmt: skip
    axes.set_xticks(x, ["0", *(f"{alpha:g}" for alpha in alphas)])
    axes.set(xlabel="alpha", ylabel=LABEL)
    axes.margins(y=0.15)
    figure.subplots_adjust(left=0.6 / figure.get_figwidth(), right=0.98, bottom=0.2, top=0.96)
    return figure
