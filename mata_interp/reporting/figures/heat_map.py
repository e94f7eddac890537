"""Layers x heads: the share of the answering token's attention that goes to audio, and each layer's mean."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..wording import runs
from .palette import AUDIO, FAINT, INK, PAPER, SHARE_MAP, SOFT
from .scale import colour_bar
from .tooltips import tip

MOST_CELLS = 1100  # more are drawn as one image, without tooltips


def heat_map(share: np.ndarray, layers: list[int], window: Collection[int], width: float) -> Figure:
    """Draw ``share`` [layer, head], fractions; NaN where a layer has fewer heads. ``layers`` names the rows,
    ``window`` the layers that are edited: outlined, as the reader's eye should find them first."""
    n_layers, n_heads = share.shape
    narrow = width < 5
    cell = min(0.36, 5.4 / n_layers)  # inches of height for a layer
    height = max(cell * n_layers, 1.6)
    # numbers are written into the cells; where these are too many, there is a colour scale below
    numbers = n_heads <= (8 if narrow else 20) and n_layers <= 24
    figure = Figure(figsize=(width, height + (0.8 if numbers else 1.3)))
    heat, bars = figure.subplots(1, 2, sharey=True, width_ratios=[3 if narrow else 4, 1])
    top = float(np.nanmax(share)) if np.isfinite(share).any() else 1.0
    sns.heatmap(
        share * 100,
        ax=heat,
        cmap=SHARE_MAP,
        vmin=0,
        vmax=max(top * 100, 1e-9),
        cbar=False,
        linewidths=0.6 if numbers else 0,
        linecolor="white",
        rasterized=share.size > MOST_CELLS,
    )
    tip(
        heat.collections[0],
        *(_tip(float(share[place]), layers[place[0]], place[1]) for place in np.ndindex(share.shape)),
    )
    for row, head in np.ndindex(share.shape) if numbers else ():
        value = share[row, head]
        if np.isfinite(value):  # light text from where it is easier to read, in the light and in the dark
            tone = PAPER if value > 0.58 * top else INK
            heat.text(
                head + 0.5,
                row + 0.5,
                f"{100 * value:.0f}",
                ha="center",
                va="center",
                fontsize=7.5,
                color=tone,
            )
    heat.invert_yaxis()  # as information flows: the first layer at the bottom
    heat.set_title("Audio share of each head, %", pad=6)
    heat.set_xlabel("head")
    heat.set_ylabel("layer")
    _ticks(heat, n_heads, layers, 8 if narrow else 16)
    heat.tick_params(length=0)
    inside = [layer in window for layer in layers]
    drawn = bars.barh(
        np.arange(n_layers) + 0.5,
        np.nanmean(share, axis=1) * 100,
        height=0.82,
        color=[AUDIO if flag else "#b8c4cc" for flag in inside],
    )
    for layer, bar, value in zip(layers, drawn, np.nanmean(share, axis=1), strict=True):
        tip(bar, f"layer {layer}, mean over heads: {100 * value:.1f} %")
    for row, value in enumerate(np.nanmean(share, axis=1) * 100 if n_layers <= 40 else []):
        bars.annotate(
            f"{value:.0f}", (value, row + 0.5), (2, 0), textcoords="offset points", va="center", fontsize=7.5
        )
    bars.set_title("mean", pad=6)
    bars.spines[["bottom", "left"]].set_visible(False)
    bars.tick_params(left=False, bottom=False, labelbottom=False, labelleft=False)
    bars.margins(x=0.3)
    bars.axvline(0, color=FAINT, linewidth=0.6)
    _outline(heat, layers, window, n_heads)
    if any(inside):
        bars.set_xlabel("blue: edited", color=SOFT, fontsize=7.5, loc="left")
    total, below = figure.get_figheight(), 0.5 if numbers else 1.0
    edges = {"left": 0.45 / width, "right": 1 - 0.05 / width, "bottom": below / total, "top": 1 - 0.3 / total}
    figure.subplots_adjust(**edges, wspace=0.06)
    if not numbers:
        scale = figure.add_axes(
            (edges["left"], 0.3 / total, 0.5 * (edges["right"] - edges["left"]), 0.1 / total)
        )
        colour_bar(scale, SHARE_MAP, 0, 100 * top)
        scale.xaxis.set_major_locator(MaxNLocator(4))
        scale.xaxis.set_major_formatter("{x:g} %")
    return figure


def _ticks(axes: Axes, n_heads: int, layers: list[int], most: int) -> None:
    step = max(1, -(-n_heads // most))
    axes.set_xticks(np.arange(0, n_heads, step) + 0.5, [str(h) for h in range(0, n_heads, step)], rotation=0)
    step = max(1, -(-len(layers) // 16))
    rows = range(0, len(layers), step)
    axes.set_yticks([row + 0.5 for row in rows], [str(layers[row]) for row in rows], rotation=0)


def _outline(heat: Axes, layers: list[int], window: Collection[int], n_heads: int) -> None:
    rows = [row for row, layer in enumerate(layers) if layer in window]
    for first, last in runs(rows):
        box = (0, first), n_heads, last - first + 1
        heat.add_patch(Rectangle(*box, fill=False, edgecolor=INK, linewidth=1.6, clip_on=False, zorder=5))


def _tip(share: float, layer: int, head: int) -> str:
    value = f"{100 * share:.1f} %" if np.isfinite(share) else "no such head"
    return f"layer {layer}, head {head}: {value}"
