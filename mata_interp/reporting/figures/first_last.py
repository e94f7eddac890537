"""Causal maps of windows: the change that each window of layers makes, by its first and its last layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..wording import named_layers, number
from .palette import CHANGE_MAP, FAINT, INK
from .scale import change_scale, footer_height, robust_limit
from .tooltips import tip

LEFT, GAP = 0.55, 0.3  # inches
SIDE = 2.3  # of the largest map, inches
MOST_CELLS = 3000  # of all maps together; more are drawn as images, without tooltips


def first_last(
    change: np.ndarray,
    layers: Sequence[int],
    alphas: Sequence[float],
    chosen: tuple[int, int, int] | None,
    width: float,
    details: np.ndarray | None = None,
) -> Figure:
    """Draw one square map per alpha: the first layer of a window across, its last layer up.

    Args:
        change: ``[alpha, width - 1, first]``, nats; NaN for windows that were not tried.
        layers: the attention layers that ``first`` indexes.
        alphas: strength of each map.
        chosen: index of the cell to outline, or None.
        width: of the figure, inches.
        details: a further line of each cell's tooltip, text in the shape of ``change``.
    """
    count = len(layers)
    across = max(1, min(len(alphas), int((width - LEFT + GAP) // (1.35 + GAP))))
    across = -(-len(alphas) // -(-len(alphas) // across))  # lines of equal length
    side = min(SIDE, (width - LEFT - 0.1 + GAP) / across - GAP)
    lines = -(-len(alphas) // across)
    pitch = side + 0.62  # a map with its title and ticks
    height = 0.08 + lines * pitch + 0.18 + footer_height("")
    figure = Figure(figsize=(width, height))
    bound = robust_limit(change)
    cells = int(np.isfinite(change).sum())
    step = max(1, -(-count // max(2, int(side / 0.2))))
    for n, alpha in enumerate(alphas):
        line, column = divmod(n, across)
        corner = LEFT + column * (side + GAP), height - 0.08 - line * pitch - 0.24 - side
        axes = figure.add_axes((corner[0] / width, corner[1] / height, side / width, side / height))
        _draw(axes, change[n], bound, layers, alpha, None if details is None else details[n])
        for mesh in axes.collections:
            mesh.set_rasterized(cells > MOST_CELLS)
        axes.set_title(f"alpha {alpha:g}", pad=4)
        axes.set_xticks(range(0, count, step), [str(layer) for layer in layers[::step]])
        axes.set_yticks(range(0, count, step), [str(layer) for layer in layers[::step]])
        if column == 0:
            axes.set_ylabel("last layer")
        if n + across >= len(alphas):  # nothing below
            axes.set_xlabel("first layer")
        if chosen is not None and chosen[0] == n:
            _, level, first = chosen
            frame = {"fill": False, "edgecolor": INK, "linewidth": 1.8, "clip_on": False, "zorder": 5}
            axes.add_patch(Rectangle((first - 0.5, first + level - 0.5), 1, 1, **frame))
    change_scale(figure, bound, LEFT, beyond=bool(np.nanmin(change, initial=0) < -bound))
    return figure


def _draw(
    axes: Axes,
    change: np.ndarray,
    bound: float,
    layers: Sequence[int],
    alpha: float,
    details: np.ndarray | None,
) -> None:
    """One map: each window as a cell at (first, last)."""
    widths, count = change.shape
    places = [(size, first) for size in range(widths) for first in range(count - size)]
    places = [place for place in places if np.isfinite(change[place])]
    values = np.array([change[place] for place in places])
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    cells = PolyCollection(
        [corners + np.array([first, first + size]) for size, first in places], array=values, cmap=CHANGE_MAP,
        norm=Normalize(-bound, bound), edgecolors=FAINT, linewidths=0.4 if count <= 16 else 0,
    )  # fmt: skip
    texts = []
    for size, first in places:
        window = named_layers(layers[first : first + size + 1])
        text = f"{window}, alpha {alpha:g}: {number(change[size, first], 2, sign=True)} nats"
        texts.append(text if details is None else f"{text}\n{details[size, first]}")
    tip(axes.add_collection(cells), *texts)
    inches = axes.get_position().width * axes.figure.get_figwidth() / count  # type: ignore[union-attr]
    for (size, first), value in zip(places if inches > 0.27 else [], values, strict=False):
        tone = "white" if abs(value) > 0.75 * bound else INK
        axes.text(first, first + size, number(value, 1), ha="center", va="center", fontsize=6, color=tone)
    axes.plot([-0.5, count - 0.5], [-0.5, count - 0.5], color=FAINT, linewidth=0.7, zorder=0)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(-0.5, count - 0.5), aspect="equal")
    axes.tick_params(length=0)
