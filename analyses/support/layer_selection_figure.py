"""The figure of layer_selection.py: the effect of MATA in every window, and ranks of windows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from mata_interp.fusion import CRITERIA
from mata_interp.ranges import layer_range

__all__ = ["draw"]

RECOMMENDED, OTHER, FAINT = "#c23b22", "0.35", "0.75"
MOST_NAMED = 12  # windows: more have no room for their names


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw effects (top) and ranks (bottom), one column for each caption condition.

    Top: windows of equal width with their intervals, and other sets of as many layers as dots beside them.
    More than 12 windows stand at their first layer, without their names and without the sets.
    Bottom: one row for each criterion, the best rank on the left.
    """
    ranks = [row for row in result["ranks"] if row["measure"] == "margin"]
    if not result["window"] or not ranks:
        return
    captions = list(dict.fromkeys(row["caption"] for row in result["effects"]))
    names = [row["name"] for row in ranks if row["caption"] == captions[0]]
    sns.set_theme(style="ticks", context="paper")
    below = 0.19 * len(names)
    figure, axes = plt.subplots(
        2, len(captions), figsize=(7.2, 3.2 + below), height_ratios=[2.2, below], sharey="row", squeeze=False
    )
    for column, caption in enumerate(captions):
        effects = {tuple(row["layers"]): row for row in result["effects"] if row["caption"] == caption}
        here = {row["name"]: row for row in ranks if row["caption"] == caption}
        _windows(axes[0, column], result, effects, here)
        axes[0, column].set_title(f"{caption} captions", loc="left")
        _ranks(axes[1, column], names, here)
    axes[0, 0].set_ylabel("change of log-probability\ndifference, nats")
    sns.despine(figure)
    figure.tight_layout()
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _windows(
    axis: Axes, result: Mapping[str, Any], effects: Mapping[Any, Any], here: Mapping[str, Any]
) -> None:
    recommended = tuple(result["window"])
    family = sorted([recommended, *(tuple(pair["layers"]) for pair in here["window"]["pairs"])])
    named = len(family) <= MOST_NAMED
    places = [float(x) for x in range(len(family))] if named else [_place(window) for window in family]
    for x, window in zip(places, family, strict=True):
        row, colour = effects[window], RECOMMENDED if window == recommended else OTHER
        filled = colour if named or _is_run(window) or window == recommended else "white"
        axis.plot(
            [x, x], [row["margin_low"], row["margin_high"]], color=colour, linewidth=1.4 if named else 1
        )
        axis.plot(x, row["margin"], "o", color=colour, markerfacecolor=filled, markersize=5 if named else 4)
    labels = [f"{layer_range(w)}\n\u03b1 {effects[w]['alpha']:g}" for w in family]
    axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    if not named:
        hollow = "" if all(map(_is_run, family)) else ";\nhollow: gaps"
        axis.set_xlabel(f"first layer of the window\n(red: recommended{hollow})")
        return
    if "sets" in here:
        aside = len(family) + 0.4
        rest = [w for w in (tuple(p["layers"]) for p in here["sets"]["pairs"]) if w not in family]
        spread = np.random.default_rng(0).uniform(-0.25, 0.25, len(rest))
        axis.plot(aside + spread, [effects[w]["margin"] for w in rest], "o", color=FAINT, markersize=3)
        labels.append(f"{len(rest)} sets\nof {len(recommended)}")
        places.append(aside)
    axis.set_xticks(places, labels, fontsize=6)
    axis.set_xlabel("MATA in layers (red: recommended)")


def _is_run(window: tuple[int, ...]) -> bool:
    return window[-1] - window[0] == len(window) - 1


def _place(window: tuple[int, ...]) -> float:
    """The first layer; windows with gaps stand beside those without."""
    return window[0] + (0.0 if _is_run(window) else 0.4)


def _ranks(axis: Axes, names: list[str], here: Mapping[str, Any]) -> None:
    """Ranks as a fraction from the best (0) to the worst (1), since families differ in size."""
    labels = []
    for y, name in enumerate(names):
        row, colour = here[name], RECOMMENDED if name in ("window", "sets") else OTHER
        share = [(row[key] - 1) / (row["of"] - 1) for key in ("rank_low", "rank", "rank_high")]
        axis.plot([share[0], share[2]], [y, y], color=colour, linewidth=1.2, clip_on=False)
        axis.plot(share[1], y, "o", color=colour, markersize=4, clip_on=False)
        axis.annotate(
            f"{row['rank']:g} of {row['of']}", (1.04, y), xycoords=("axes fraction", "data"), va="center",
            fontsize=6.5, color=colour, annotation_clip=False,
        )  # fmt: skip
        labels.append(f"{_label(name)}: {layer_range(row['layers'])}")
    axis.set_yticks(range(len(names)), labels, fontsize=6.5)
    axis.set(ylim=(len(names) - 0.5, -0.5), xlim=(-0.02, 1.02), xticks=[0, 0.5, 1])
    axis.set_xticklabels(["best", "rank", "worst"], fontsize=7)


def _label(name: str) -> str:
    labels = {"window": "recommended", "sets": "recommended, among all sets"}
    return labels[name] if name in labels else CRITERIA[name].label
