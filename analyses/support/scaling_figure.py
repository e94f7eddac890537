"""The figure of scaling.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .scaling_paper import GPUS, Assumptions, on_paper

mpl.use("Agg")

__all__ = ["draw"]

METHODS = {
    "loop": ("a forward pass for each", "#d55e00"),
    "run": ("mi.run: one prefill", "#7f7f7f"),
    "sweep": ("mi.sweep: all at once", "#0072b2"),
}
MANY = tuple(2**n for n in range(10))  # GPUs


def draw(measured: pd.DataFrame | None, papers: Mapping[str, Assumptions], path: Path) -> None:
    """Measured throughput by workers (optional); estimated hours by GPUs, a panel for each kind of option."""
    sns.set_theme(style="ticks", context="paper", palette="colorblind", font="DejaVu Sans")
    panels = len(papers) + (measured is not None)
    figure = Figure(figsize=(2.9 * panels, 3.4), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, panels)))
    if measured is not None:
        _pace(axes[0], measured)
    right = axes[-len(papers) :]
    for panel, (name, assumptions) in zip(right, papers.items(), strict=True):
        _hours(panel, assumptions, name)
        panel.sharey(right[0])
    right[0].set_ylabel("hours", fontsize=7.5)
    for panel, letter in zip(axes, "abc", strict=False):
        title = panel.get_title()
        panel.set_title("")
        panel.set_title(f"{letter}   {title}", loc="left", fontsize=8.5)
        panel.tick_params(labelsize=7.5)
        sns.despine(ax=panel)
    right[0].legend(loc="upper right", fontsize=6.5, frameon=False)
    figure.savefig(path, dpi=200)


def _pace(axes: Axes, measured: pd.DataFrame) -> None:
    """A dot for each round, a bar at the median, and a line at the throughput of perfect scaling."""
    ways = list(dict.fromkeys(measured.sort_values("workers")["way"]))
    for x, way in enumerate(ways):
        rows: Any = measured[measured["way"] == way]
        ideal, middle = max(1, int(rows["workers"].iloc[0])), float(rows["times"].median())
        axes.plot([x - 0.3, x + 0.3], [ideal, ideal], ":", color="black", linewidth=1)
        axes.bar(x, middle, width=0.5, color="#0072b2", alpha=0.35)
        axes.plot([x] * len(rows), rows["times"], "o", color="#0072b2", markersize=3.5)
        axes.annotate(f"{middle:.2f}", (x, 0), (0, 3), textcoords="offset points", ha="center", fontsize=7.5)
    axes.set_xticks(range(len(ways)), ways, fontsize=7.5)
    axes.set_title("Measured: throughput of a run")
    axes.set_ylabel("× one process (dotted: perfect)", fontsize=7.5)
    axes.set_ylim(0, max(2.2, 1.1 * measured["times"].to_numpy().max()))


def _hours(axes: Axes, assumptions: Assumptions, name: str) -> None:
    table = on_paper(assumptions, MANY)
    for method, (label, colour) in METHODS.items():
        rows: Any = table[table["method"] == method]
        axes.plot(rows["gpus"], rows["hours"], color=colour, linewidth=1.4, label=label)
        marked = rows[rows["gpus"].isin(GPUS)]
        axes.plot(marked["gpus"], marked["hours"], "o", color=colour, markersize=4)
    # what more GPUs do not reduce
    floor = (
        on_paper(replace(assumptions, flops=1e30, bandwidth=1e30, part=0.0, prepare=0.0), (1,))["hours"]
        .to_numpy()
        .min()
    )
    axes.axhline(floor, color="black", linewidth=0.8, linestyle=":")
    axes.annotate("loading and validation", (1, floor), (0, -8), textcoords="offset points", fontsize=6.5)
    axes.set(xscale="log", yscale="log", title=f"Estimated: {name}")
    axes.set_xticks(GPUS, [str(n) for n in GPUS])
    axes.set_yticks([0.1, 0.3, 1, 3, 10, 30], ["0.1", "0.3", "1", "3", "10", "30"])
    axes.minorticks_off()
    axes.set_xlabel(f"GPUs, for {assumptions.items:,} items × {assumptions.configurations}", fontsize=7.5)
