"""Causal maps and maps of heads: layers by heads, windows of layers, and one layer at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from ..errors import FigureError
from ..fusion import FusionProfile
from ..ranges import layers_in, named_layers, runs
from ..tracing import audio_share
from .canvas import current, inches, keep, layer_ticks, mark_layers, require, wrong_type
from .colours import AUDIO, CHANGE_MAP, FAINT, INK, SHARE_MAP, SOFT, TEXT, Palette, colour_map, line_colours
from .tooltips import ends, percent, signed, tip

__all__ = ["CHANGE", "heads", "layers", "windows"]

CHANGE = "change of the log-probability difference, nats"
SIGNED = ("change of margin", "attribution")  # measures with a zero in the middle of the colour map
MOST_CELLS = 1100  # more are drawn as one image in a vector file
ABSENT = "#e8e8e8"  # a head that the layer does not have


def heads(
    data: xr.DataArray | xr.Dataset | FusionProfile,
    *,
    window: Iterable[int] = (),
    annotate: bool | None = None,
    colorbar: bool = True,
    limit: float | None = None,
    ax: Axes | None = None,
    palette: Palette = None,
) -> Axes:
    """Draw a value of each head as a map, layers up and heads across.

    Shares run from 0 in one colour; changes run from orange (loss) through white to blue (gain), on a scale
    that is symmetric about 0. Heads that a layer does not have are grey. The scale of a causal map marks the
    map's noise floor, and ``above_noise_floor`` in its numbers says which places lie beyond it.

    Args:
        data: a causal map of `mata_interp.head_configs` ``[layer, head]``, in nats; a trace or its audio
            share, of which the mean over items is drawn; or a fusion profile, whose direct attribution of
            heads is drawn, in logits.
        window: layers to outline.
        annotate: whether to write numbers into the cells; None: where there is room.
        colorbar: whether to draw the scale beside the map.
        limit: end of the scale, in the unit of the data; None: the largest absolute value.
        ax: where to draw; None: pyplot's current axes.
        palette: the colour map, by name, or colours to blend.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers.

    Raises:
        FigureError: ``data`` has no heads, or a layer of the window is unknown.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[:2]
        >>> trace = mi.trace(lalm, items, progress=False)
        >>> _, ax = plt.subplots()
        >>> mi.plot.heads(trace, window=[4, 5], ax=ax).get_ylabel()
        'layer'
    """
    values, label = _of_heads(data)
    signed_scale = values.name in SIGNED or bool((values < 0).any())
    ax = current(ax)
    rows = [int(layer) for layer in values["layer"].values]
    cells = values.values.astype(float)
    bound = limit or (float(np.nanmax(np.abs(cells))) if np.isfinite(cells).any() else 0.0) or 1.0
    ax.set_facecolor(ABSENT)
    mesh = ax.pcolormesh(
        np.arange(cells.shape[1]), np.arange(cells.shape[0]), np.ma.masked_invalid(cells),
        cmap=colour_map(palette, CHANGE_MAP if signed_scale else SHARE_MAP),
        vmin=-bound if signed_scale else 0,
        vmax=bound, edgecolors="white", linewidth=0.5 if cells.size <= MOST_CELLS else 0,
        rasterized=cells.size > MOST_CELLS,
    )  # fmt: skip
    share = values.name == "audio_share"
    write_numbers(
        ax, mesh, cells, annotate, ".0f" if share else "+.2f" if signed_scale else ".2f", 100 if share else 1
    )
    tip(
        mesh,
        *(_tip(rows[row], head, float(cells[row, head]), share) for row, head in np.ndindex(cells.shape)),
    )
    _outline(ax, rows, window, cells.shape[1])
    layer_ticks(ax, list(range(cells.shape[1])))
    layer_ticks(ax, rows, "y")
    ax.tick_params(length=0)
    ax.set(xlabel="head", ylabel="layer")
    floor = values.attrs.get("noise_floor")
    if colorbar:
        add_scale([ax], mesh, label, share, floor)
    table = values.rename("value").to_dataframe()["value"].reset_index().dropna(ignore_index=True)
    return keep(ax, _with_floor(table, floor))


def layers(
    causal_map: xr.DataArray, *, window: Iterable[int] = (), ax: Axes | None = None, palette: Palette = None
) -> Axes:
    """Draw the change that an edit of each layer alone makes, with the interval of each layer over clips.

    No line joins the layers, because each is a separate experiment. A grey band is the map's noise floor.

    Args:
        causal_map: a map of `mata_interp.layer_configs`, ``[layer]``, in nats.
        window: layers to shade.
        ax: where to draw; None: pyplot's current axes.
        palette: the colours of gain and loss; None: blue and orange.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers.

    Raises:
        FigureError: it is no such map.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening").sample(2)
        >>> causal_map = mi.causal_map(lalm, items, mi.layer_configs(lalm), progress=False)
        >>> _, ax = plt.subplots()
        >>> len(mi.plot.data(mi.plot.layers(causal_map, ax=ax)))
        8
    """
    if not isinstance(causal_map, xr.DataArray):
        raise wrong_type(causal_map, "layers", "a map from mi.causal_map")
    require(causal_map, ["layer"], "plot.layers", "give mi.causal_map(lalm, items, mi.layer_configs(lalm)).")
    ax = current(ax)
    names = [int(layer) for layer in causal_map["layer"].values]
    gain, loss = line_colours(["gain", "loss"], [AUDIO, TEXT] if palette is None else palette)
    value, low, high = (causal_map.values, *(causal_map[end].values for end in ("low", "high")))
    colours = [gain if one > 0 else loss for one in value]
    x = np.arange(len(names))
    mark_layers(ax, names, window)
    ax.axhline(0, color=SOFT, linewidth=0.7, zorder=0)
    floor = causal_map.attrs.get("noise_floor")
    if floor is not None:
        ax.axhspan(-floor, floor, color=FAINT, alpha=0.5, linewidth=0, zorder=-1)
    ax.vlines(x, low, high, colors=colours, linewidth=1.6)
    dots = ax.scatter(x, value, c=colours, s=20, zorder=3, linewidths=0)
    tip(
        dots,
        *(
            f"layer {layer}: {signed(mean)} nats{ends(a, b, signed)}"
            for layer, mean, a, b in zip(names, value, low, high, strict=True)
        ),
    )
    ax.set(xlabel="layer", ylabel=CHANGE, xlim=(-0.6, len(names) - 0.4))
    layer_ticks(ax, names)
    table = pd.DataFrame({"layer": names, "value": value, "low": low, "high": high})
    return keep(ax, _with_floor(table, floor))


def windows(
    causal_map: xr.DataArray,
    *,
    alpha: float | None = None,
    chosen: Iterable[int] | None = None,
    annotate: bool | None = None,
    colorbar: bool = True,
    limit: float | None = None,
    ax: Axes | None = None,
    palette: Palette = None,
) -> Axes:
    """Draw the change that an edit of each window of layers makes, by its first and its last layer.

    Args:
        causal_map: a map of `mata_interp.window_configs`, ``[layers, alpha]``, in nats.
        alpha: the strength to draw; may be None if the map has one only.
        chosen: layers of a window to outline.
        annotate: whether to write numbers into the cells; None: where there is room.
        colorbar: whether to draw the scale beside the map. It is symmetric about 0, and that of all strengths
            of the map, so that several plots of one map can be compared.
        limit: end of the scale, nats, for maps that are to be compared; None: the largest absolute value.
        ax: where to draw; None: pyplot's current axes.
        palette: the colour map, by name, or colours to blend; None: orange for loss, blue for gain.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers.

    Raises:
        FigureError: it is no such map, a set of layers is no window, or the strength or the chosen window is
            not in it.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening").sample(2)
        >>> configs = mi.window_configs(lalm, alphas=[0.5, 1.0], widths=[1, 2, 3])
        >>> causal_map = mi.causal_map(lalm, items, configs, progress=False)
        >>> _, ax = plt.subplots()
        >>> ax = mi.plot.windows(causal_map, alpha=1.0, chosen=[4, 5, 6], ax=ax)
        >>> len(mi.plot.data(ax))
        21
    """
    if not isinstance(causal_map, xr.DataArray):
        raise wrong_type(causal_map, "windows", "a map from mi.causal_map")
    require(
        causal_map,
        ["layers", "alpha"],
        "plot.windows",
        "give mi.causal_map(lalm, items, mi.window_configs(lalm)).",
    )
    alpha = _strength(causal_map, alpha)
    sets = sets_of(causal_map)
    names = sorted({layer for some in sets for layer in some})
    places = [_place(some, names) for some in sets]
    values = causal_map.sel(alpha=alpha).values
    there = np.flatnonzero(np.isfinite(values))
    finite = np.abs(causal_map.values[np.isfinite(causal_map.values)])
    bound = limit or float(finite.max(initial=0.0)) or 1.0
    ax = current(ax)
    count = len(names)
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    cells = PolyCollection(
        [corners + places[n] for n in there], array=values[there], cmap=colour_map(palette, CHANGE_MAP),
        norm=Normalize(-bound, bound), edgecolors=FAINT, linewidths=0.4 if count <= 16 else 0,
        rasterized=len(there) > MOST_CELLS,
    )  # fmt: skip
    ax.add_collection(cells)
    tip(cells, *(f"{named_layers(sets[n])}, alpha {alpha:g}: {signed(float(values[n]))} nats" for n in there))
    ax.plot([-0.5, count - 0.5], [-0.5, count - 0.5], color=FAINT, linewidth=0.7, zorder=0)
    ax.set(xlim=(-0.5, count - 0.5), ylim=(-0.5, count - 0.5), aspect="equal")
    ax.set(xlabel="first layer of the window", ylabel="last layer", title=f"alpha {alpha:g}")
    layer_ticks(ax, names)
    layer_ticks(ax, names, "y")
    ax.tick_params(length=0)
    if annotate if annotate is not None else min(inches(ax)) / count > 0.27:
        for n in there:
            _write(ax, cells, places[n], f"{values[n]:+.1f}", float(values[n]))
    if chosen is not None:
        _frame(ax, tuple(sorted(set(chosen))), sets, places)
    floor = causal_map.attrs.get("noise_floor")
    if colorbar:
        add_scale([ax], cells, CHANGE, floor=floor)
    table = {name: [places[n][at] for n in there] for at, name in enumerate(("first", "last"))}
    table = {name: [names[row] for row in rows] for name, rows in table.items()}
    return keep(ax, _with_floor(pd.DataFrame({**table, "alpha": alpha, "value": values[there]}), floor))


# ----------------------------------------------------------------------------------------------------- parts
def _tip(layer: int, head: int, value: float, share: bool) -> str:
    """The text of a cell."""
    if not np.isfinite(value):
        return f"layer {layer}, head {head}: no such head"
    return f"layer {layer}, head {head}: {f'{percent(value)} %' if share else signed(value, 3)}"


def _of_heads(data: Any) -> tuple[xr.DataArray, str]:
    """The map ``[layer, head]`` and the label of its scale."""
    if isinstance(data, FusionProfile):
        if data.heads is None:
            raise FigureError("The profile has no attribution of heads: measure the criterion 'attribution'.")
        return data.heads, "direct attribution, logits"
    if isinstance(data, xr.Dataset) and "mass" in data:
        data = audio_share(data)
    if not isinstance(data, xr.DataArray):
        raise wrong_type(data, "heads", "a trace, its audio share, a causal map or a fusion profile")
    name = data.name
    values = data.mean("item", skipna=True).rename(name) if "item" in data.dims else data
    hint = "give mi.causal_map(lalm, items, mi.head_configs(lalm)), or a trace."
    require(values, ["layer", "head"], "plot.heads", hint)
    label = {
        "audio_share": "audio share",
        "change of margin": CHANGE,
        "attribution": "direct attribution, logits",
    }
    return values.transpose("layer", "head"), label.get(str(name), str(name or ""))


def write_numbers(
    ax: Axes, mesh: QuadMesh, cells: np.ndarray, show: bool | None, form: str, scale: float
) -> None:
    width, height = inches(ax)
    room = width / cells.shape[1] > 0.34 and height / cells.shape[0] > 0.15
    if not (room if show is None else show):
        return
    for row, column in np.argwhere(np.isfinite(cells)).tolist():
        value = float(cells[row, column])
        _write(ax, mesh, (column, row), format(scale * value, form), value)


def _write(ax: Axes, mappable: Any, place: tuple[int, int], text: str, value: float) -> None:
    """A number in a cell, in white where the cell is dark."""
    red, green, blue, _ = mappable.cmap(mappable.norm(value))
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    text = text.replace("-", "\N{MINUS SIGN}")
    ax.text(*place, text, ha="center", va="center", fontsize=7, color="white" if dark else INK)


def _outline(ax: Axes, rows: list[int], window: Iterable[int], width: int) -> None:
    chosen = set(window)
    if absent := sorted(chosen - set(rows)):
        raise FigureError(f"The window has {named_layers(absent)}, which the data lack.")
    for first, last in runs(row for row, layer in enumerate(rows) if layer in chosen):
        corner, height = (-0.5, first - 0.5), last - first + 1
        ax.add_patch(
            Rectangle(
                corner, width, height, fill=False, edgecolor=INK, linewidth=1.6, clip_on=False, zorder=5
            )
        )


def _with_floor(table: pd.DataFrame, floor: float | None) -> pd.DataFrame:
    """The numbers of a map, with whether each place lies beyond its noise floor, where it has one."""
    return table if floor is None else table.assign(above_noise_floor=table["value"].abs() > floor)


def add_scale(
    axes: Sequence[Axes], mappable: Any, label: str, percent: bool = False, floor: float | None = None
) -> None:
    """The colour scale beside one or several axes, with lines at the noise floor where there is one."""
    form = PercentFormatter(1, decimals=0, symbol=" %") if percent else None
    bar = axes[0].figure.colorbar(mappable, ax=list(axes), label=label, format=form)  # type: ignore[union-attr]
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0)
    if floor is not None:
        bar.set_label(f"{label}\nlines: noise floor, \N{PLUS-MINUS SIGN}{floor:.2g}")
        bar.ax.axhline(floor, color=INK, linewidth=0.8)
        bar.ax.axhline(-floor, color=INK, linewidth=0.8)


def _strength(causal_map: xr.DataArray, alpha: float | None) -> float:
    known = [float(value) for value in causal_map["alpha"].values]
    if alpha is None and len(known) == 1:
        return known[0]
    if alpha not in known:
        names = ", ".join(f"{value:g}" for value in known)
        raise FigureError(f"alpha is {alpha!r}, and the map has the strengths {names}: name one of them.")
    return float(alpha)


def sets_of(causal_map: xr.DataArray) -> list[tuple[int, ...]]:
    """The layers of each row of a map."""
    return [layers_in(str(name)) for name in causal_map["layers"].values]


def is_window(causal_map: xr.DataArray) -> bool:
    """Whether all sets of layers of a map are windows: neighbours among the layers of the map."""
    sets = sets_of(causal_map)
    names = sorted({layer for some in sets for layer in some})
    return all(tuple(names[names.index(some[0]) :][: len(some)]) == some for some in sets)


def _place(some: tuple[int, ...], names: list[int]) -> tuple[int, int]:
    first, last = names.index(some[0]), names.index(some[-1])
    if tuple(names[first : last + 1]) != some:
        raise FigureError(
            f"The map has {named_layers(some)}, which is no window: map mi.window_configs(lalm)."
        )
    return first, last


def _frame(ax: Axes, chosen: tuple[int, ...], sets: list, places: list[tuple[int, int]]) -> None:
    if chosen not in sets:
        raise FigureError(f"The map has no window of {named_layers(chosen)}.")
    first, last = places[sets.index(chosen)]
    ax.add_patch(
        Rectangle(
            (first - 0.5, last - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.8, clip_on=False, zorder=5
        )
    )
