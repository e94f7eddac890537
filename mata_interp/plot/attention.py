"""Plots of a trace: the audio share by layer, and the attention on each group of tokens."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ..errors import FigureError, unknown_name
from ..statistics import clustered_interval
from ..tracing import audio_share
from .canvas import current, draw_line, keep, layer_ticks, mark_layers, wrong_type
from .colours import GROUP_COLOURS, MARKERS, Palette, line_colours
from .tooltips import ends, percent, tip

__all__ = ["draw_share", "groups", "share", "share_of", "share_table"]

FRACTIONS = {"audio_share": "audio share"}  # measures that are drawn in per cent
LABELS = {"audio_text_ratio": "audio / text", "mdi": "MDI", "aei": "AEI"}
ORDER = ("neutral", "congruent", "conflict")  # of caption conditions


def share(
    trace: xr.Dataset | xr.DataArray,
    *,
    by: str | None = None,
    window: Iterable[int] = (),
    level: float = 0.95,
    ax: Axes | None = None,
    palette: Palette = None,
) -> Axes:
    """Draw the audio share by layer, with its interval over clips.

    Heads are averaged within each item, then items; the band is the interval over clips of each layer alone
    (`mata_interp.statistics.clustered_interval`).

    Args:
        trace: a trace from `mata_interp.trace`, of which `mata_interp.audio_share` is drawn; or any measure
            with the dimensions ``item`` and ``layer``, and ``head`` or not, such as ``mi.mdi(trace)``.
        by: a coordinate of the items, such as ``"condition"`` or ``"domain"``: one line for each of its
            values.
        window: layers to shade.
        level: coverage of the interval, as a fraction.
        ax: where to draw; None: pyplot's current axes.
        palette: colours of the lines: a name or a list as in seaborn, or value of ``by`` -> colour; None:
            a colour-blind-safe palette.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers.

    Raises:
        FigureError: ``trace`` has no layers, items or coordinate ``by``, or a layer of the window is unknown.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[:4]
        >>> trace = mi.trace(lalm, items, progress=False)
        >>> _, ax = plt.subplots()
        >>> ax = mi.plot.share(trace, by="condition", window=[4, 5, 6, 7], ax=ax)
        >>> ax.get_xlabel()
        'layer'
    """
    values = share_of(trace, "share")
    if by is not None and (by not in values.coords or values[by].dims != ("item",)):
        known = [str(name) for name, c in values.coords.items() if c.dims == ("item",) and name != "item"]
        raise FigureError(unknown_name("coordinate of the items", by, known))
    return draw_share(current(ax), share_table(values, by, level), str(values.name), window, palette)


def share_table(values: xr.DataArray, by: str | None = None, level: float = 0.95) -> pd.DataFrame:
    """The numbers of `share`: layer, value, low, high, n_items and n_clips, after ``by`` where there is one.

    Args:
        values: a measure ``[item, layer]``.
        by: a coordinate of the items, or None.
        level: coverage of the interval, as a fraction.
    """
    layers = [int(layer) for layer in values["layer"].values]
    bounds = (0.0, 1.0) if values.name in FRACTIONS else (-np.inf, np.inf)
    parts = []
    for label in [""] if by is None else _in_order(values[by].values):
        part = (
            values if by is None else values.isel(item=np.flatnonzero(values[by].values.astype(str) == label))
        )
        clusters = part["cluster"].values if "cluster" in part.coords else part["item"].values
        mean, low, high = clustered_interval(part.values, clusters, level, bounds)
        about = {"n_items": part.sizes["item"], "n_clips": len(set(map(str, clusters)))}
        columns = {"layer": layers, "value": mean, "low": low, "high": high, **about}
        parts.append(pd.DataFrame(columns if by is None else {by: label, **columns}))
    return pd.concat(parts, ignore_index=True)


def draw_share(
    ax: Axes, table: pd.DataFrame, measure: str, window: Iterable[int] = (), palette: Palette = None
) -> Axes:
    """Draw a `share_table` of a measure with this name; layers are evenly spaced."""
    by = None if table.columns[0] == "layer" else str(table.columns[0])
    layers = list(dict.fromkeys(table["layer"].tolist()))
    mark_layers(ax, layers, window)
    ax.autoscale(axis="y")  # where an earlier plot on these axes has set the limit
    labels = [""] if by is None else list(dict.fromkeys(table[by]))
    form = percent if measure in FRACTIONS else "{:.3g}".format
    for label, colour, marker in zip(labels, line_colours(labels, palette), MARKERS * 9, strict=False):
        part = table if by is None else table.loc[table[by] == label]
        value, low, high = (part[name].to_numpy() for name in ("value", "low", "high"))
        unit = " %" if measure in FRACTIONS else ""
        about = f"{label}, layer" if label else "layer"
        texts = [
            f"{about} {layer}: {form(mean)}{unit}{ends(a, b, form)}"
            for layer, mean, a, b in zip(layers, value, low, high, strict=True)
        ]
        draw_line(
            ax, np.arange(len(layers)), value, low, high,
            colour=colour, marker=marker, label=label or None, texts=texts,
        )  # fmt: skip
    if measure in FRACTIONS:
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    title = FRACTIONS.get(measure, LABELS.get(measure, measure))
    ax.set(xlabel="layer", ylabel=title, xlim=(-0.6, len(layers) - 0.4))
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    layer_ticks(ax, layers)
    if by is not None:
        title = {"condition": "caption"}.get(by, by)
        legend = ax.legend(title=title, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        for text in legend.get_texts():
            text.set_parse_math(False)
    return keep(ax, table)


def groups(
    trace: xr.Dataset, *, window: Iterable[int] = (), ax: Axes | None = None, palette: Palette = None
) -> Axes:
    """Draw the attention on each group of tokens as stacked bars, one for each layer.

    Args:
        trace: a trace from `mata_interp.trace`; the mean over items and heads is drawn.
        window: layers to shade.
        ax: where to draw; None: pyplot's current axes.
        palette: colours of the groups; None: blue for audio, orange to yellow for the user's text, grey for
            template and sink.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers, fractions that sum to 1 in each layer.

    Raises:
        FigureError: ``trace`` is no trace.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[:4]
        >>> _, ax = plt.subplots()
        >>> ax = mi.plot.groups(mi.trace(lalm, items, progress=False), ax=ax)
        >>> mi.plot.data(ax).query("layer == 0")["value"].sum().round(4).item()
        1.0
    """
    if not isinstance(trace, xr.Dataset) or "mass" not in trace:
        raise wrong_type(trace, "groups", "a trace from mi.trace, with 'mass'")
    _refuse_queries(trace["mass"])
    mass = trace["mass"].mean(("item", "head"), skipna=True).transpose("group", "layer")
    names = [str(name) for name in mass["group"].values]
    shown = [name for name in GROUP_COLOURS if name in names and float(mass.sel(group=name).sum()) > 0]
    ax = current(ax)
    layers = [int(layer) for layer in mass["layer"].values]
    colours = [GROUP_COLOURS[name] for name in shown] if palette is None else line_colours(shown, palette)
    base, rows, x = np.zeros(len(layers)), [], np.arange(len(layers))
    for name, colour in zip(shown, colours, strict=True):
        part = np.nan_to_num(mass.sel(group=name).values.astype(float))
        bars = ax.bar(
            x, part, bottom=base, width=0.86, color=colour, edgecolor="white", linewidth=0.4, label=name
        )
        for layer, bar, value in zip(layers, bars, part.tolist(), strict=True):
            tip(bar, f"layer {layer}, {name}: {percent(value)} %")
        rows.append(pd.DataFrame({"group": name, "layer": layers, "value": part}))
        base = base + part
    mark_layers(ax, layers, window)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    ax.set(xlabel="layer", ylabel="attention", ylim=(0, 1), xlim=(-0.6, len(layers) - 0.4))
    layer_ticks(ax, layers)
    ax.legend(*(part[::-1] for part in ax.get_legend_handles_labels()), frameon=False, loc="center left",
              bbox_to_anchor=(1.0, 0.5))  # fmt: skip
    return keep(ax, pd.concat(rows))


def share_of(trace: xr.Dataset | xr.DataArray, function: str) -> xr.DataArray:
    """``[item, layer]``: the audio share of a trace, or a measure, averaged over heads.

    Raises:
        FigureError: it is neither, or has other dimensions.
    """
    if isinstance(trace, xr.Dataset) and "mass" in trace:
        trace = audio_share(trace)
    if not isinstance(trace, xr.DataArray):
        raise wrong_type(trace, function, "a trace from mi.trace, or a measure of one such as mi.audio_share")
    _refuse_queries(trace)
    if not {"item", "layer"} <= set(trace.dims) or set(trace.dims) - {"item", "layer", "head"}:
        raise FigureError(
            f"plot.{function} needs the dimensions item and layer (and head), and these are "
            f"{trace.dims}: give a trace, or a measure of one that was not averaged over items."
        )
    name = trace.name
    averaged = trace.mean("head", skipna=True) if "head" in trace.dims else trace
    return averaged.transpose("item", "layer").rename(name)


def _refuse_queries(array: xr.DataArray) -> None:
    if "query" in array.dims:
        raise FigureError(
            'The trace keeps its queries: draw trace.mean("query"), or trace without per_query.'
        )


def _in_order(values: np.ndarray) -> list[str]:
    """The values once each; caption conditions in their usual order."""
    present = list(dict.fromkeys(map(str, values)))
    known = [name for name in ORDER if name in present]
    return known if len(known) == len(present) else sorted(present)
