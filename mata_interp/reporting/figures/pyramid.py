"""Every window of neighbouring layers under every strength: what each changes, where it lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..wording import number
from .palette import CHANGE_MAP, FAINT, INK
from .scale import change_scale, foot, telling

ROW = (0.05, 0.3)  # inches, of the windows of one width
LEFT, GAP = 0.5, 0.12  # inches


def pyramid(
    change: np.ndarray,
    layers: Sequence[int],
    alphas: Sequence[float],
    chosen: tuple[int, int, int] | None,
    width: float,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw ``change`` [alpha, width - 1, first]: a pyramid for each alpha, single layers at its foot.

    A window stands above the middle of its layers. Values are nats, NaN where not tried; ``first`` counts
    ``layers``, the attention layers. ``chosen`` is a cell of it, to be framed. ``title`` stands above,
    ``note`` below.
    """
    count, widths = len(layers), change.shape[1]
    across = min(len(alphas), 5 if width > 5 else 2)
    down = -(-len(alphas) // across)
    inside = (width - LEFT - GAP * across) / across  # inches, of one pyramid
    row = min(max(1.25 / widths, ROW[0]), ROW[1])
    tall, pitch = row * widths, row * widths + 0.54  # with its title above and its ticks below
    head = 0.24 if title else 0
    height = head + down * pitch + 0.2 + foot(note)
    figure = Figure(figsize=(width, height))
    bound = telling(change)
    step = max(1, -(-count // max(2, int(inside / 0.22))))
    rungs = sorted({1, widths} | (set(range(1, widths + 1)) if row > 0.14 else set()))
    for n, alpha in enumerate(alphas):
        line, column = divmod(n, across)
        corner = LEFT + column * (inside + GAP), height - head - line * pitch - 0.26 - tall
        axes = figure.add_axes((corner[0] / width, corner[1] / height, inside / width, tall / height))
        _draw(axes, change[n], bound, numbers=inside / count > 0.36)
        axes.set_title(f"alpha {alpha:g}", pad=4)
        axes.set_xticks(range(0, count, step), [str(layer) for layer in layers[::step]])
        if column == 0:
            axes.set_yticks([rung - 0.5 for rung in rungs], [str(rung) for rung in rungs])
            name = "layers in window" if tall > 1.1 else "width"
            figure.text(
                0.1 / width, (corner[1] + tall / 2) / height, name, rotation=90, ha="center", va="center"
            )
        if chosen is not None and chosen[0] == n:
            _, level, first = chosen
            place = (first + level / 2 - 0.5, level)
            frame = {"fill": False, "edgecolor": INK, "linewidth": 1.6, "clip_on": False, "zorder": 5}
            axes.add_patch(Rectangle(place, 1, 1, **frame))
    figure.text(LEFT / width, (foot(note) + 0.16) / height, "middle of the window, layer", va="center")
    figure.text(LEFT / width, 1 - 0.04 / height, title, va="top", fontsize=9)
    change_scale(figure, bound, LEFT, note, beyond=bool(np.nanmin(change, initial=0) < -bound))
    return figure


def _draw(axes: Axes, change: np.ndarray, bound: float, numbers: bool) -> None:
    widths, count = change.shape
    look = {"cmap": CHANGE_MAP, "vmin": -bound, "vmax": bound, "edgecolors": "white"}
    look |= {"linewidth": 0.5 if count <= 16 else 0, "rasterized": change.size > 200}
    for size in range(1, widths + 1):
        cells = change[size - 1, : count - size + 1]
        edges = np.arange(len(cells) + 1) + (size - 1) / 2 - 0.5
        axes.pcolormesh(edges, [size - 1, size], cells[None], **look)
        for at, value in enumerate(cells if numbers else ()):
            if np.isfinite(value):
                tone = "white" if abs(value) > 0.75 * bound else INK
                words = {"ha": "center", "va": "center", "fontsize": 7, "color": tone}
                axes.text(edges[at] + 0.5, size - 0.5, number(value, 2, sign=True), **words)
    right = np.repeat([count - 0.5 - size / 2 for size in range(widths)], 2)
    steps = np.concatenate([np.repeat(np.arange(widths), 2)[1:], [widths]])
    x, y = [*right, *(count - 1 - right)[::-1], right[0]], [*steps, *steps[::-1], 0]
    axes.plot(
        x, y, color=FAINT, linewidth=0.7, zorder=3, clip_on=False
    )  # what was tried, where nothing moved
    axes.set(xlim=(-0.5, count - 0.5), ylim=(0, widths), yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
