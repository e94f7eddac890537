"""Heat maps of the change that each window of neighbouring layers makes, one map per alpha."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..wording import number
from .palette import CHANGE_MAP, FAINT, INK
from .scale import change_scale, footer_height, robust_limit

ROW = (0.05, 0.3)  # smallest and largest height of a row, inches
LEFT, GAP = 0.5, 0.12  # inches


def window_heatmap(
    change: np.ndarray,
    layers: Sequence[int],
    alphas: Sequence[float],
    chosen: tuple[int, int, int] | None,
    width: float,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw one triangular heat map per alpha: rows are window widths, single layers at the bottom.

    A cell is centred on the middle of its window.

    Args:
        change: ``[alpha, width - 1, first]``, nats; NaN for windows that were not tried.
        layers: the attention layers that ``first`` indexes.
        alphas: strength of each map.
        chosen: index of the cell to outline, or None.
        width: of the figure, inches.
        title: above the maps.
        note: below them.
    """
    count, widths = len(layers), change.shape[1]
    across = min(len(alphas), 5 if width > 5 else 2)
    down = -(-len(alphas) // across)
    inside = (width - LEFT - GAP * across) / across  # inches, one map
    row = min(max(1.25 / widths, ROW[0]), ROW[1])
    tall, pitch = row * widths, row * widths + 0.54  # the map; the map with its title and ticks
    head = 0.24 if title else 0
    height = head + down * pitch + 0.2 + footer_height(note)
    figure = Figure(figsize=(width, height))
    bound = robust_limit(change)
    step = max(1, -(-count // max(2, int(inside / 0.22))))
    width_ticks = sorted({1, widths} | (set(range(1, widths + 1)) if row > 0.14 else set()))
    for n, alpha in enumerate(alphas):
        line, column = divmod(n, across)
        corner = LEFT + column * (inside + GAP), height - head - line * pitch - 0.26 - tall
        axes = figure.add_axes((corner[0] / width, corner[1] / height, inside / width, tall / height))
        _draw(axes, change[n], bound, numbers=inside / count > 0.36)
        axes.set_title(f"alpha {alpha:g}", pad=4)
        axes.set_xticks(range(0, count, step), [str(layer) for layer in layers[::step]])
        if column == 0:
            axes.set_yticks([tick - 0.5 for tick in width_ticks], [str(tick) for tick in width_ticks])
            name = "layers in window" if tall > 1.1 else "width"
            figure.text(
                0.1 / width, (corner[1] + tall / 2) / height, name, rotation=90, ha="center", va="center"
            )
        if chosen is not None and chosen[0] == n:
            _, level, first = chosen
            place = (first + level / 2 - 0.5, level)
            frame = {"fill": False, "edgecolor": INK, "linewidth": 1.6, "clip_on": False, "zorder": 5}
            axes.add_patch(Rectangle(place, 1, 1, **frame))
    figure.text(
        LEFT / width, (footer_height(note) + 0.16) / height, "middle of the window, layer", va="center"
    )
    figure.text(LEFT / width, 1 - 0.04 / height, title, va="top", fontsize=9)
    change_scale(figure, bound, LEFT, note, beyond=bool(np.nanmin(change, initial=0) < -bound))
    return figure


def _draw(axes: Axes, change: np.ndarray, bound: float, numbers: bool) -> None:
    widths, count = change.shape
    style = {"cmap": CHANGE_MAP, "vmin": -bound, "vmax": bound, "edgecolors": "white"}
    style |= {"linewidth": 0.5 if count <= 16 else 0, "rasterized": change.size > 200}
    for size in range(1, widths + 1):
        cells = change[size - 1, : count - size + 1]
        edges = np.arange(len(cells) + 1) + (size - 1) / 2 - 0.5
        axes.pcolormesh(edges, [size - 1, size], cells[None], **style)
        for at, value in enumerate(cells if numbers else ()):
            if np.isfinite(value):
                tone = "white" if abs(value) > 0.75 * bound else INK
                text_style = {"ha": "center", "va": "center", "fontsize": 7, "color": tone}
                axes.text(edges[at] + 0.5, size - 0.5, number(value, 2, sign=True), **text_style)
    right = np.repeat([count - 0.5 - size / 2 for size in range(widths)], 2)
    steps = np.concatenate([np.repeat(np.arange(widths), 2)[1:], [widths]])
    x, y = [*right, *(count - 1 - right)[::-1], right[0]], [*steps, *steps[::-1], 0]
    # the outline shows which windows were tried where the change is zero and the cells are white
    axes.plot(x, y, color=FAINT, linewidth=0.7, zorder=3, clip_on=False)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(0, widths), yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
