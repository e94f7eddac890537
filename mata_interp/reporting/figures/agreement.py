"""The same edits in two sweeps: the change in one against that in the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...plot.canvas import keep
from ...plot.tooltips import tip
from ..wording import interval, number
from .palette import AUDIO, SOFT


@dataclass(frozen=True)
class Point:
    """One edit: mean, low and high of its change in each sweep, nats."""

    name: str
    first: tuple[float, float, float]
    second: tuple[float, float, float]


def agreement(points: Sequence[Point], first: str, second: str, width: float) -> Figure:
    """Scatter the change in ``second`` over that in ``first``, on one scale."""
    side = min(width, 4.4)
    figure = Figure(figsize=(side, side))
    axes = figure.subplots()
    x, y = (np.array([getattr(point, which)[0] for point in points]) for which in ("first", "second"))
    dots = axes.scatter(x, y, color=AUDIO, alpha=0.6, s=14, linewidths=0)
    tip(dots, *(_tip(point, first, second) for point in points))
    bound = float(np.nanmax(np.abs(np.concatenate([x, y])), initial=0.1)) * 1.08
    axes.plot([-bound, bound], [-bound, bound], color=SOFT, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    axes.axhline(0, color=SOFT, linewidth=0.6, zorder=0)
    axes.axvline(0, color=SOFT, linewidth=0.6, zorder=0)
    axes.set(xlim=(-bound, bound), ylim=(-bound, bound), aspect="equal")
    axes.set_xlabel(f"{first}, nats")
    axes.set_ylabel(f"{second}, nats")
    rows = [(point.name, *point.first, *point.second) for point in points]
    columns = [f"{end}_{place}" for place in ("first", "second") for end in ("value", "low", "high")]
    keep(axes, pd.DataFrame(rows, columns=["edit", *columns]))
    figure.subplots_adjust(left=0.16, right=0.98, bottom=0.13, top=0.98)
    return figure


def _tip(point: Point, first: str, second: str) -> str:
    def nats(value: float) -> str:
        return number(value, 2, sign=True)

    lines = [
        f"{label}: {nats(mean)} {interval(low, high, nats)} nats"
        for label, (mean, low, high) in ((first, point.first), (second, point.second))
    ]
    return "\n".join([point.name, *lines])
