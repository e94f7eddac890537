"""The margin of each item without and with MATA."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from .palette import AUDIO, SOFT, TEXT


def margins(before: np.ndarray, after: np.ndarray, width: float) -> Figure:
    """Scatter ``after`` over ``before`` (margins in nats, one per item).

    A margin above zero is a right answer: the upper left quadrant contains the answers that MATA fixed, the
    lower right those that it broke.
    """
    fixed, broken = (before <= 0) & (after > 0), (before > 0) & (after <= 0)
    side = min(width, 4.4)
    figure = Figure(figsize=(side, side))
    axes = figure.subplots()
    dots = {"s": 12, "linewidths": 0, "rasterized": len(before) > 3000}
    axes.scatter(before[~fixed & ~broken], after[~fixed & ~broken], color="#9a9a9a", alpha=0.5, **dots)
    axes.scatter(before[fixed], after[fixed], color=AUDIO, **dots)
    axes.scatter(before[broken], after[broken], color=TEXT, **dots)
    bound = float(np.nanmax(np.abs(np.concatenate([before, after])), initial=1.0)) * 1.05
    axes.plot([-bound, bound], [-bound, bound], color=SOFT, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    axes.axhline(0, color=SOFT, linewidth=0.6, zorder=0)
    axes.axvline(0, color=SOFT, linewidth=0.6, zorder=0)
    axes.set(xlim=(-bound, bound), ylim=(-bound, bound), aspect="equal")
    corner = {"xycoords": "axes fraction", "textcoords": "offset points", "weight": "bold", "fontsize": 9}
    axes.annotate(f"{fixed.sum()} fixed", (0, 1), (4, -4), color=AUDIO, va="top", **corner)
    axes.annotate(f"{broken.sum()} broken", (1, 0), (-4, 4), color=TEXT, ha="right", **corner)
    axes.set_xlabel("margin without MATA, nats")
    axes.set_ylabel("margin with MATA, nats")
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.12, top=0.98)
    return figure
