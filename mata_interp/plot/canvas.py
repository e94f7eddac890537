"""What all plots share: axes, ticks of layers, shaded windows, and the numbers behind a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import FigureError
from ..ranges import named_layers, runs
from .colours import SOFT
from .tooltips import tip

__all__ = ["current", "data", "draw_line", "inches", "keep", "layer_ticks", "mark_layers", "require"]

_TABLES: WeakKeyDictionary[Axes, list[pd.DataFrame]] = WeakKeyDictionary()


def current(ax: Axes | None) -> Axes:
    """``ax``, or pyplot's current axes if it is None.

    Raises:
        FigureError: ``ax`` is something else, such as a figure or an array of axes.
    """
    if ax is None:
        return plt.gca()
    if not isinstance(ax, Axes):
        raise FigureError(
            f"ax is a {type(ax).__name__}: give one matplotlib Axes, such as axes[0] of several."
        )
    return ax


def keep(ax: Axes, table: pd.DataFrame) -> Axes:
    """Remember the table that was drawn on ``ax``, for `data`; returns ``ax``."""
    _TABLES.setdefault(ax, []).append(table.reset_index(drop=True))
    return ax


def data(ax: Axes | Figure) -> pd.DataFrame:
    """The numbers that functions of this package drew on these axes, as a table.

    Args:
        ax: axes that such a function returned, or a figure that has some.

    Returns:
        One row per mark: its place, its value and, where one is drawn, the interval ``low`` to ``high``, in
        the units of the data. Several plots on the same axes follow each other. Of a figure with several
        such axes, the first column ``panel`` has the label of the axes, or their number from 1.

    Raises:
        FigureError: no function of this package drew there.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> effect = mi.paired_effect([0, 0, 1, 0, 0, 1], [1, 1, 1, 1, 0, 0])
        >>> _, ax = plt.subplots()
        >>> mi.plot.data(mi.plot.effects({"mata": effect}, ax=ax))["difference"].round(3).tolist()
        [0.333]
    """
    there = ax.axes if isinstance(ax, Figure) else [ax]
    panels = [(each, tables) for each in there if isinstance(each, Axes) and (tables := _TABLES.get(each))]
    if not panels:
        raise FigureError("No function of mata_interp.plot drew on these axes, so there is no table.")
    if len(panels) == 1:
        return pd.concat(panels[0][1], ignore_index=True)
    named = []
    for number, (each, tables) in enumerate(panels, 1):
        table = pd.concat(tables, ignore_index=True)
        whole = dict.fromkeys(table.select_dtypes("integer"), "Int64")  # which may be missing in other panels
        table.insert(0, "panel", str(each.get_label() or number))
        named.append(table.astype(whole))
    return pd.concat(named, ignore_index=True)


def draw_line(  # noqa: PLR0913 a line with a band has these parts
    ax: Axes,
    x: Any,
    value: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    colour: Any,
    marker: str = "o",
    label: str | None = None,
    texts: Sequence[str] = (),
) -> None:
    """Draw a line with a marker at each value and a band from ``low`` to ``high``, where these are known.

    Args:
        ax: the axes.
        x: places of the values.
        value, low, high: in the unit of the axes.
        colour, marker: of the line.
        label: in the legend; None: not there.
        texts: one of each value, for the tooltips of a page.
    """
    if np.isfinite(low).any():
        ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    line = ax.plot(x, value, color=colour, linewidth=1.4, marker=marker, markersize=4.5, label=label)[0]
    if texts:  # the line is drawn before its markers, of which unknown values have none
        tip(line, label or "", *(text for text, y in zip(texts, value, strict=True) if np.isfinite(y)))


def inches(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes."""
    figure = ax.figure
    box = ax.get_position()
    return box.width * figure.get_figwidth(), box.height * figure.get_figheight()  # type: ignore[union-attr]


def layer_ticks(ax: Axes, layers: Sequence[int], axis: str = "x", offset: float = 0.0) -> None:
    """Name the rows or columns 0, 1, ... by their layers, as many as there is room for.

    Args:
        ax: the axes.
        layers: the layer of each row or column.
        axis: ``"x"`` or ``"y"``.
        offset: where the middle of the first row or column is.
    """
    width, height = inches(ax)
    room = max(2, int(width / 0.22) if axis == "x" else int(height / 0.18))
    step = max(1, -(-len(layers) // room))
    places = [index + offset for index in range(0, len(layers), step)]
    (ax.set_xticks if axis == "x" else ax.set_yticks)(places, [str(layer) for layer in layers[::step]])


def mark_layers(ax: Axes, layers: Sequence[int], window: Iterable[int]) -> None:
    """Shade the columns of the layers in ``window``.

    Raises:
        FigureError: a layer of the window is not among ``layers``.
    """
    chosen = set(window)
    if absent := sorted(chosen - set(layers)):
        raise FigureError(f"The window has {named_layers(absent)}, which the data lack.")
    for first, last in runs(index for index, layer in enumerate(layers) if layer in chosen):
        ax.axvspan(first - 0.5, last + 0.5, color=SOFT, alpha=0.12, linewidth=0, zorder=0)


def require(array: xr.DataArray, dims: Iterable[str], what: str, hint: str) -> None:
    """Refuse an array whose dimensions are not exactly ``dims``.

    Raises:
        FigureError: with the dimensions, what is drawn, and where such an array comes from.
    """
    if set(array.dims) != set(dims):
        raise FigureError(f"{what} needs the dimensions {tuple(dims)}, and these are {array.dims}: {hint}")


def wrong_type(value: Any, function: str, takes: str) -> FigureError:
    """The error for a value that a function cannot draw."""
    return FigureError(f"plot.{function} cannot draw a {type(value).__name__}: give {takes}.")
