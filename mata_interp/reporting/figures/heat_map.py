"""Layers x heads: the share of the answering token's attention that goes to audio, and each layer's mean.

The map is that of `mata_interp.plot.heads`; the page adds the mean of each layer.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...plot import heads
from ...plot.canvas import keep
from ...plot.tooltips import tip
from .palette import AUDIO, FAINT, SHARE_MAP, SOFT
from .scale import colour_bar


def heat_map(share: xr.DataArray, window: Collection[int], width: float) -> Figure:
    """Draw the audio share of every head and, beside it, the mean of each layer.

    Args:
        share: ``[layer, head]``, fractions; NaN where a layer has fewer heads.
        window: layers that are edited: outlined, as the reader's eye should find them first.
        width: of the figure, inches.
    """
    values, layers = share.values, [int(layer) for layer in share["layer"].values]
    n_layers, n_heads = values.shape
    narrow = width < 5
    height = max(min(0.36, 5.4 / n_layers) * n_layers, 1.6)
    # numbers are written into the cells; where these are too many, there is a colour scale below
    numbers = n_heads <= (8 if narrow else 20) and n_layers <= 24
    figure = Figure(figsize=(width, height + (0.8 if numbers else 1.3)))
    heat, bars = figure.subplots(1, 2, sharey=True, width_ratios=[3 if narrow else 4, 1])
    total, below = figure.get_figheight(), 0.5 if numbers else 1.0
    edges = {"left": 0.45 / width, "right": 1 - 0.05 / width, "bottom": below / total, "top": 1 - 0.3 / total}
    figure.subplots_adjust(**edges, wspace=0.06)
    heat.set_label("heads")
    heads(share.rename("audio_share"), window=window, annotate=numbers, colorbar=False, ax=heat)
    heat.set_title("Audio share of each head, %", pad=6)
    heat.spines[["left", "bottom"]].set_visible(False)
    _ticks(heat, n_heads, layers, 8 if narrow else 16)
    bars.set_label("means")
    _means(bars, np.nanmean(values, axis=1), layers, window)
    if not numbers:
        scale = figure.add_axes(
            (edges["left"], 0.3 / total, 0.5 * (edges["right"] - edges["left"]), 0.1 / total)
        )
        top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
        colour_bar(scale, SHARE_MAP, 0, 100 * top)
        scale.xaxis.set_major_locator(MaxNLocator(4))
        scale.xaxis.set_major_formatter("{x:g} %")
    return figure


def _means(bars: Axes, means: np.ndarray, layers: list[int], window: Collection[int]) -> None:
    """The mean of each layer as a bar in its row; edited layers in a full colour."""
    inside = [layer in window for layer in layers]
    rows = np.arange(len(layers))
    drawn = bars.barh(
        rows, means, height=0.82, color=[AUDIO if flag else "#b8c4cc" for flag in inside]
    )  # fmt: skip
    for layer, bar, value in zip(layers, drawn, means, strict=True):
        tip(bar, f"layer {layer}, mean over heads: {100 * value:.1f} %")
    for row, value in enumerate(means if len(layers) <= 40 else []):
        place: dict[str, Any] = {
            "xytext": (2, 0),
            "textcoords": "offset points",
            "va": "center",
            "fontsize": 7.5,
        }
        bars.annotate(f"{100 * value:.0f}", (value, row), **place)
    bars.set_title("mean", pad=6)
    bars.spines[["bottom", "left"]].set_visible(False)
    bars.tick_params(left=False, bottom=False, labelbottom=False, labelleft=False)
    bars.margins(x=0.3)
    bars.axvline(0, color=FAINT, linewidth=0.6)
    if any(inside):
        bars.set_xlabel("blue: edited", color=SOFT, fontsize=7.5, loc="left")
    keep(bars, pd.DataFrame({"layer": layers, "value": means, "edited": inside}))


def _ticks(axes: Axes, n_heads: int, layers: list[int], most: int) -> None:
    step = max(1, -(-n_heads // most))
    axes.set_xticks(range(0, n_heads, step), [str(h) for h in range(0, n_heads, step)])
    step = max(1, -(-len(layers) // 16))
    rows = range(0, len(layers), step)
    axes.set_yticks(rows, [str(layers[row]) for row in rows])
