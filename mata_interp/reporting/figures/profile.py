"""Layer by layer: attention of the last prompt token by token group, and the share of audio in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..wording import runs
from .palette import AUDIO, GROUP_COLOURS, SOFT
from .tooltips import tip


def profile(
    mass: Mapping[str, np.ndarray],
    share: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    layers: list[int],
    window: Collection[int],
    width: float,
) -> Figure:
    """Draw the mean ``mass`` [layer] of each group as stacked bars and, below, the audio ``share`` [layer].

    The bars sum to 1. ``low`` to ``high`` is the interval of the share over clips. All values are fractions.
    """
    figure = Figure(figsize=(width, 4.4))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    x = np.arange(len(layers))
    base = np.zeros(len(layers))
    middles: list[tuple[str, float]] = []
    for group in (g for g in GROUP_COLOURS if g in mass and np.nansum(mass[g]) > 0):
        part = np.nan_to_num(mass[group]) * 100
        bars = upper.bar(
            x, part, bottom=base, width=0.88, color=GROUP_COLOURS[group], edgecolor="white", linewidth=0.4
        )
        for layer, bar, height in zip(layers, bars, part, strict=True):
            tip(bar, f"layer {layer}, {group}: {height:.1f} %")
        middles.append((group, float(base[-1] + part[-1] / 2)))
        base = base + part
    upper.set(ylim=(0, 100), yticks=[0, 50, 100])
    upper.set_title("Attention of the last token by token group, %", pad=6)
    lower.fill_between(x, low * 100, high * 100, color=AUDIO, alpha=0.22, linewidth=0)
    lower.plot(x, share * 100, color=AUDIO, linewidth=1.4)
    dots = lower.scatter(x, share * 100, color=AUDIO, s=12, zorder=3, linewidths=0)
    ends = zip(layers, share, low, high, strict=True)
    tip(dots, *(f"layer {at}: {100 * mean:.1f} % [{100 * a:.1f}, {100 * b:.1f}]" for at, mean, a, b in ends))
    lower.set_ylim(0, max(float(np.nanmax([share, high])) * 115, 1))
    lower.set_title("Audio share: audio / (audio + text), without sink, %", pad=6)
    step = max(1, -(-len(layers) // (10 if width < 5 else 18)))
    lower.set_xticks(x[::step], [str(layer) for layer in layers[::step]])
    lower.set_xlabel("layer")
    _mark_window(lower, layers, window)
    for axes in (upper, lower):
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
        axes.set_xlim(-0.6, len(layers) - 0.4)
    upper.tick_params(bottom=False)
    _names_beside(upper, middles, x[-1] + 0.5)
    figure.subplots_adjust(left=0.36 / width, right=1 - 0.72 / width, bottom=0.1, top=0.94, hspace=0.22)
    return figure


def _names_beside(axes: Axes, middles: list[tuple[str, float]], x: float, gap: float = 8.5) -> None:
    """Write each name beside the last bar at the height of its part, moved apart where parts are thin."""
    heights = [middle for _, middle in middles]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    ceiling = 97.0
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - gap
    reach = 0.03 * (axes.get_xlim()[1] - axes.get_xlim()[0])
    for (group, middle), height in zip(middles, heights, strict=True):
        axes.plot([x, x + reach], [middle, height], color=GROUP_COLOURS[group], linewidth=1.2, clip_on=False)
        axes.text(x + 1.25 * reach, height, group, va="center", fontsize=8)


def _mark_window(axes: Axes, layers: list[int], window: Collection[int]) -> None:
    rows = [row for row, layer in enumerate(layers) if layer in window]
    for first, last in runs(rows):
        axes.axvspan(first - 0.5, last + 0.5, color="#000000", alpha=0.05, linewidth=0, zorder=0)
    if rows:
        middle = (rows[0] + rows[-1]) / 2
        place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top"}
        axes.text(middle, 0.97, "edited by MATA", fontsize=7.5, color=SOFT, **place)
