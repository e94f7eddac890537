"""The margin of each item without and with MATA."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ..wording import number
from .palette import AUDIO, SOFT, TEXT
from .tooltips import tip

MOST_DOTS = 1200  # more are drawn as one image, without tooltips


def margins(before: np.ndarray, after: np.ndarray, width: float, items: Sequence[str] = ()) -> Figure:
    """Scatter ``after`` over ``before`` (margins in nats, one per item); ``items`` names them in tooltips.

    A margin above zero is a right answer: the upper left quadrant contains the answers that MATA corrected,
    the lower right those that it broke.
    """
    fixed, broken = (before <= 0) & (after > 0), (before > 0) & (after <= 0)
    side = min(width, 4.4)
    figure = Figure(figsize=(side, side))
    axes = figure.subplots()
    dots = {"s": 12, "linewidths": 0, "rasterized": len(before) > MOST_DOTS}
    for part, style in (
        (~fixed & ~broken, {"color": "#9a9a9a", "alpha": 0.5}),
        (fixed, {"color": AUDIO}),
        (broken, {"color": TEXT}),
    ):
        drawn = axes.scatter(before[part], after[part], **style, **dots)
        if len(items):
            tip(
                drawn,
                *(_tip(items[n], float(before[n]), float(after[n])) for n in map(int, np.flatnonzero(part))),
            )
    bound = float(np.nanmax(np.abs(np.concatenate([before, after])), initial=1.0)) * 1.05
    axes.plot([-bound, bound], [-bound, bound], color=SOFT, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    axes.axhline(0, color=SOFT, linewidth=0.6, zorder=0)
    axes.axvline(0, color=SOFT, linewidth=0.6, zorder=0)
    axes.set(xlim=(-bound, bound), ylim=(-bound, bound), aspect="equal")
    corner = {"xycoords": "axes fraction", "textcoords": "offset points", "weight": "bold", "fontsize": 9}
    axes.annotate(f"{fixed.sum()} corrected", (0, 1), (4, -4), color=AUDIO, va="top", **corner)
    axes.annotate(f"{broken.sum()} broken", (1, 0), (-4, 4), color=TEXT, ha="right", **corner)
    axes.set_xlabel("margin without MATA, nats")
    axes.set_ylabel("margin with MATA, nats")
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.12, top=0.98)
    return figure


def _tip(item: str, before: float, after: float) -> str:
    return f"{item}: {number(before)} to {number(after)} nats"
