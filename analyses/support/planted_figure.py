"""The figure of planted_truth.py: truth and window of each planted model, IoU of each criterion."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from mata_interp.fusion import CRITERIA

__all__ = ["draw"]

WINDOW, PLANTED, DISTRACTOR, FAINT = "#c23b22", "#cfe3f3", "#f6e3c5", "0.75"


def draw(
    results: Mapping[str, Any],
    table: pd.DataFrame,
    clips: pd.DataFrame,
    overall: pd.DataFrame,
    tuned: Collection[str],
    path: Path,
) -> None:
    """Draw each model and the IoU by number of clips (left), and the IoU by criterion and model (right)."""
    sns.set_theme(style="ticks", context="paper")
    height = 0.62 * len(results)
    figure = plt.figure(figsize=(11.5, height + 3.3), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=[1, 1.35])
    left, right = halves
    grid = left.add_gridspec(len(results) + 1, 1, height_ratios=[0.62] * len(results) + [2.1])
    marks = {name: f"{name} *" if name in tuned else name for name in results}
    for row, (name, (spec, truth, profile)) in enumerate(results.items()):
        axis = left.add_subplot(grid[row])
        _model(axis, spec, truth, profile.window, last=row + 1 == len(results))
        axis.set_ylabel(marks[name], rotation=0, ha="right", va="center", labelpad=8)
        if row == 0:
            axis.set_title(
                "loss by masking audio in one layer, relative to all layers\n"
                "blue: fusion layers; ochre: distractor layers; red: recommended window",
                fontsize="small", loc="left",
            )  # fmt: skip
    _clips(left.add_subplot(grid[-1]), clips)
    _criteria(right.subplots(), table, overall, marks)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _model(axis: Axes, spec: Any, truth: Any, window: Collection[int], last: bool) -> None:
    layers = np.arange(len(truth.cost))
    for shaded, colour in ((spec.fusion_layers, PLANTED), (spec.distractor_layers, DISTRACTOR)):
        for layer in shaded:
            axis.axvspan(layer - 0.5, layer + 0.5, color=colour, zorder=0, linewidth=0)
    axis.bar(layers, truth.cost, color="0.35", width=0.6)
    axis.vlines(layers, truth.low, truth.high, color="black", linewidth=0.9)
    for layer in window:
        axis.plot([layer - 0.45, layer + 0.45], [-0.1, -0.1], color=WINDOW, linewidth=2.5, clip_on=False)
    top = max(1.0, float(truth.high.max()))
    axis.set(ylim=(0, top * 1.05), xlim=(-0.6, len(layers) - 0.4), yticks=[0, 1])
    axis.set_xticks(layers, layers if last else [""] * len(layers))
    axis.tick_params(length=2)
    sns.despine(ax=axis)
    if last:
        axis.set_xlabel("decoder layer")


def _clips(axis: Axes, clips: pd.DataFrame) -> None:
    """IoU of each model by number of clips, and the mean."""
    for _, each in clips.groupby("model", sort=False):
        axis.plot(each["clips"], each["iou"], color=FAINT, linewidth=0.9)
    mean: Any = clips.groupby("clips")["iou"].mean()
    axis.plot(mean.index, mean, "o-", color=WINDOW, markersize=4)
    axis.set_xscale("log")
    axis.set_xticks(mean.index, [str(size) for size in mean.index])
    axis.minorticks_off()
    axis.set(ylim=(0, 1.05), xlabel="number of clips", ylabel="IoU with the truth")
    axis.set_title("recommended window; red: mean, grey: each model", fontsize="small", loc="left")
    sns.despine(ax=axis)


def _criteria(axis: Axes, table: pd.DataFrame, overall: pd.DataFrame, marks: Mapping[str, str]) -> None:
    grid: Any = table.pivot_table("iou", "criterion", "model").loc[overall["criterion"], list(marks)]
    grid.columns = list(marks.values())
    grid.index = [
        "recommended window" if name == "window" else f"{CRITERIA[name].label} ({CRITERIA[name].evidence})"
        for name in overall["criterion"]
    ]
    sns.heatmap(
        grid,
        ax=axis,
        vmin=0,
        vmax=1,
        cmap="mako",
        annot=True,
        fmt=".1f",
        annot_kws={"size": 7},
        cbar_kws={"label": "intersection over union (IoU) with the truth", "shrink": 0.5},
        linewidths=0.5,
        yticklabels=True,
    )
    axis.axhline(1, color="white", linewidth=4)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0)
    axis.set_title("*: looked at during development", fontsize="small", loc="left")
