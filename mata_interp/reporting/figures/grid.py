"""Mean margin of every configuration of layers and alpha on the selection split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..wording import number
from .palette import CHANGE_MAP, INK


def grid(
    change: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    chosen: tuple[int, int] | None,
    width: float,
) -> Figure:
    """Draw ``change`` [layers, alpha]: mean margin minus that of the baseline, nats; NaN where not tried.

    ``rows`` are names of layer sets, ``columns`` are alphas, and ``chosen`` is the cell to outline.
    """
    height = 0.27 * len(rows) + 0.85
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    fits = len(columns) <= (7 if width < 5 else 14)
    written = (
        np.array([[number(v, 2, sign=True) if np.isfinite(v) else "" for v in row] for row in change])
        if fits
        else False
    )
    bound = float(np.nanmax(np.abs(change))) if np.isfinite(change).any() else 1.0
    sns.heatmap(
        change,
        ax=axes,
        cmap=CHANGE_MAP,
        vmin=-bound,
        vmax=bound,
        annot=written,
        fmt="",
        annot_kws={"fontsize": 7.5},
        cbar=False,
        linewidths=0.8,
        linecolor="white",
    )
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=0)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0)
    axes.tick_params(length=0)
    axes.set_xlabel("alpha")
    axes.set_ylabel("layers")
    axes.set_title("Mean margin minus that of the baseline, nats", pad=6)
    if chosen is not None:
        axes.add_patch(
            Rectangle(
                (chosen[1], chosen[0]), 1, 1, fill=False, edgecolor=INK, linewidth=2, clip_on=False, zorder=5
            )
        )
    figure.subplots_adjust(
        left=0.75 / width, right=1 - 0.05 / width, bottom=0.5 / height, top=1 - 0.3 / height
    )
    return figure
