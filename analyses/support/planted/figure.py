"""The figure of planted_set.py: overlap with the truth by number of clips, and what stability promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes

from mata_interp.ranges import brief

from .scoring import Scores

__all__ = ["draw"]

GOALS = {50: 0.85, 100: 0.9}  # mean IoU over models


def draw(scores: Scores, path: Path) -> None:
    """Draw the scores of `support.planted.scoring.score` and save the figure."""
    sns.set_theme(style="ticks", context="paper")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=[1.7, 1], layout="constrained")
    _overlap(axes[0], scores)
    _stability(axes[1], scores)
    sns.despine(figure)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _overlap(axis: Axes, scores: Scores) -> None:
    """Mean IoU of each model over draws, and its mean over models, by number of clips."""
    models: Any = scores["models"]
    using = models[models["truth"].map(len) > 0]
    colours = sns.color_palette("husl", using["plant"].nunique())
    groups = using.groupby("plant", sort=False)
    for colour, (name, part) in zip(colours, groups, strict=True):
        axis.plot(
            part["clips"], part["iou"], marker="o", markersize=3, linewidth=1, color=colour,
            label=f"{name}: {brief(part['truth'].iloc[0])}",
        )  # fmt: skip
    means: Any = scores["clips"]
    axis.plot(means["clips"], means["iou"], color="black", linewidth=2.5, label="mean over models")
    for clips, goal in GOALS.items():
        label = "goal for the mean" if clips == min(GOALS) else None
        axis.plot([clips * 0.93, clips * 1.07], [goal, goal], color="0.5", linewidth=3, label=label)
    sizes = means["clips"].tolist()
    axis.set_xscale("log")
    axis.set_xticks(sizes, sizes)
    axis.minorticks_off()
    axis.set(xlabel="clips", ylabel="overlap with the truth (IoU), mean over draws", ylim=(0, 1.03))
    axis.legend(frameon=False, fontsize=6.5, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _stability(axis: Axes, scores: Scores) -> None:
    """How often another draw gives a similar window, by the stability that was claimed."""
    table: Any = scores["stability"]
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
    axis.plot(table["claimed"], table["observed"], color="#0072b2", marker="o")
    for row in table.itertuples():
        axis.annotate(f"{row.windows:,}", (row.claimed, row.observed), (4, -10), textcoords="offset points",
                      fontsize=7)  # fmt: skip
    axis.set(
        xlabel="stability, mean of a bin",
        ylabel="other draws with a similar window",
        xlim=(0, 1.05),
        ylim=(0, 1.05),
    )
