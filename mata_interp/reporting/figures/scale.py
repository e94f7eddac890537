"""The colour scale of changes and the note below a map, the same for all maps."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from ..wording import number
from .palette import CHANGE_MAP, SOFT

LABEL = "change of the margin, nats"
SCALE_HEIGHT = 0.55  # inches
STEPS = 64  # of a colour scale


def largest(change: np.ndarray) -> float:
    """The limit of a scale that is symmetric about zero: the largest absolute change."""
    return (float(np.nanmax(np.abs(change))) if np.isfinite(change).any() else 1.0) or 1.0


def robust_limit(change: np.ndarray) -> float:
    """The limit of a scale that a few very large losses do not determine, as they would hide all else.

    Every gain is within it; losses above twice the 95 % quantile of all absolute changes are clipped.
    """
    sizes = np.abs(change[np.isfinite(change)])
    if not len(sizes):
        return 1.0
    usual = max(float(np.nanmax(change)), float(np.quantile(sizes, 0.95, method="lower")))
    return (usual if sizes.max() > 2 * usual else float(sizes.max())) or 1.0


def footer_height(note: str) -> float:
    """Height of the scale and the note below a map, inches."""
    return SCALE_HEIGHT + note_height(note)


def note_height(note: str) -> float:
    """Height of a note of one or several lines, inches."""
    return 0.08 + 0.14 * (1 + note.count("\n")) if note else 0.0


def colour_bar(axes: Axes, colours: Colormap, low: float, high: float) -> None:
    """Fill ``axes`` with a scale from ``low`` to ``high`` in marks of colours that the maps have.

    matplotlib draws its own as an image, whose colours could not follow the page's light and dark.
    """
    ends = np.linspace(low, high, STEPS + 1)
    axes.pcolormesh(
        ends, [0, 1], (ends[:-1] + ends[1:])[None] / 2, cmap=colours, vmin=low, vmax=high,
        edgecolors="face", linewidth=0.4,
    )  # fmt: skip
    axes.set(xlim=(low, high), yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def change_scale(figure: Figure, bound: float, left: float, note: str = "", beyond: bool = False) -> None:
    """Draw the scale from loss to gain and a note at the bottom of ``figure``.

    Args:
        bound: limit of the scale, nats.
        left: distance from the left edge, inches.
        note: below the scale.
        beyond: whether losses exceed ``bound``; the scale then says so.
    """
    width, height = figure.get_figwidth(), figure.get_figheight()
    level = footer_height(note) - 0.38
    long = min(2.6, width - left - 0.4)
    scale = figure.add_axes((left / width, level / height, long / width, 0.09 / height))
    colour_bar(scale, CHANGE_MAP, -bound, bound)
    digits = max(0, 1 - int(np.floor(np.log10(bound))))
    ends = [number(-bound, digits) + (" or less" if beyond else ""), "0", number(bound, digits, sign=True)]
    scale.set_xticks([-bound, 0, bound], ends)
    scale.set_title(LABEL, fontsize=8, pad=3)
    if note:
        figure.text(left / width, 0.06 / height, note, fontsize=7.5, color=SOFT, va="bottom")
