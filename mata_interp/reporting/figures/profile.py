"""Layer by layer: attention of the last prompt token by token group, and the share of audio in it.

The panels are those of `mata_interp.plot.groups` and `mata_interp.plot.share`, with names beside the bars.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...plot import groups
from ...plot.attention import draw_share
from .palette import GROUP_COLOURS, SOFT


def profile(trace: xr.Dataset, share: pd.DataFrame, window: Collection[int], width: float) -> Figure:
    """Draw the mean attention on each group as stacked bars and, below, the audio share by layer.

    Args:
        trace: a trace of single items.
        share: from `plot.attention.share_table`, with the intervals over clips.
        window: layers that MATA edits; shaded in the lower panel.
        width: of the figure, inches.
    """
    figure = Figure(figsize=(width, 4.4))
    figure.subplots_adjust(left=0.46 / width, right=1 - 0.72 / width, bottom=0.1, top=0.94, hspace=0.22)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    upper.set_label("token groups")
    groups(trace, ax=upper)
    handles: list[Any]  # the bars of each group
    handles, names = upper.get_legend_handles_labels()
    upper.get_legend().remove()  # type: ignore[union-attr]
    upper.set(yticks=[0, 0.5, 1], xlabel="", ylabel="")
    upper.set_title("Attention of the last token by token group", pad=6)
    lower.set_label("audio share")
    draw_share(lower, share, "audio_share", window)
    lower.set(ylabel="", ylim=(0, max(1.15 * float(share[["value", "high"]].max().max()), 0.01)))
    lower.set_title("Audio share: audio / (audio + text), without sink", pad=6)
    layers = share["layer"].tolist()
    step = max(1, -(-len(layers) // (10 if width < 5 else 18)))
    lower.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    rows = [row for row, layer in enumerate(layers) if layer in window]
    if rows:
        place = {"transform": lower.get_xaxis_transform(), "ha": "center", "va": "top"}
        lower.text((rows[0] + rows[-1]) / 2, 0.97, "edited by MATA", fontsize=7.5, color=SOFT, **place)
    for axes in (upper, lower):
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
    upper.tick_params(bottom=False)
    last = [(name, bars[-1]) for name, bars in zip(names, handles, strict=True)]
    middles = [(name, 100 * (bar.get_y() + bar.get_height() / 2)) for name, bar in last]
    _names_beside(upper, middles, len(layers) - 0.5)
    return figure


def _names_beside(axes: Axes, middles: list[tuple[str, float]], x: float, gap: float = 8.5) -> None:
    """Write each name beside the last bar at the height of its part in %, apart where parts are thin."""
    heights = [middle for _, middle in middles]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    ceiling = 97.0
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - gap
    reach = 0.03 * (axes.get_xlim()[1] - axes.get_xlim()[0])
    for (group, middle), height in zip(middles, heights, strict=True):
        axes.plot(
            [x, x + reach],
            [middle / 100, height / 100],
            color=GROUP_COLOURS[group],
            linewidth=1.2,
            clip_on=False,
        )
        axes.text(x + 1.25 * reach, height / 100, group, va="center", fontsize=8)
