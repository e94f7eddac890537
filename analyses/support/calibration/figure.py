"""The figure of calibration.py: every error rate and every coverage, by procedure, with the goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

__all__ = ["draw"]

COLOURS = {"met": "0.25", "conservative": "#3b7ab8", "missed": "#c23b22", "": "0.75"}
ERRORS = ("type I error", "family-wise error", "false discovery rate")
COVERAGES = ("coverage", "one-sided coverage")


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw error rates (left) and coverages (right): one line for each procedure, one dot for each cell.

    Args:
        rows: rows of the result, as dicts.
        path: the file to write.
    """
    sns.set_theme(style="ticks", context="paper")
    panels = [[row for row in rows if row["quantity"] in kind] for kind in (ERRORS, COVERAGES)]
    names = [list(dict.fromkeys(row["procedure"] for row in panel)) for panel in panels]
    tall = max(len(each) for each in names)
    figure, axes = plt.subplots(1, 2, figsize=(12, 1.2 + 0.27 * tall), layout="constrained")
    _panel(axes[0], panels[0], names[0], (0.0, 0.05))
    axes[0].set(xlabel="rejections where nothing is to be found, %", xlim=(-0.3, 12))
    _panel(axes[1], panels[1], names[1], (0.935, 0.965))
    axes[1].set(xlabel="intervals that hold the truth, %", xlim=(78, 100.5))
    handles = [Line2D([], [], marker="o", linestyle="", color=c) for c in COLOURS.values()]
    labels = ["meets its goal", "covers more", "misses its goal", "no goal"]
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _panel(
    axis: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str], goal: tuple[float, float]
) -> None:
    axis.axvspan(100 * goal[0], 100 * goal[1], color="0.93", zorder=0)
    rng = np.random.default_rng(0)
    left, right = (0.0, 12.0) if goal[0] == 0 else (78.0, 100.0)
    for row in rows:
        y = names.index(row["procedure"]) + rng.uniform(-0.25, 0.25)
        x = float(np.clip(100 * row["rate"], left, right))  # dots at the edge are beyond it
        axis.plot([x - 100 * row["error"], x + 100 * row["error"]], [y, y], color="0.8", linewidth=0.8)
        axis.plot(x, y, "o", markersize=3.5, color=COLOURS[row["verdict"]])
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(length=2)
    sns.despine(ax=axis)
