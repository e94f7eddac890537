"""Plots of a fusion profile: the share that decides the window, one criterion, the overlap of windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ..errors import FigureError, unknown_name
from ..fusion import FusionProfile
from ..ranges import runs
from ..statistics import clustered_interval
from .canvas import current, keep, layer_ticks, wrong_type
from .colours import AUDIO, INK, SHARE_MAP, SOFT, TEXT, Palette, colour_map, line_colours
from .maps import write_numbers
from .tooltips import ends, percent, tip

__all__ = ["agreement", "profile"]

EVIDENCE = {"causal": AUDIO, "gradient": "#009e73", "attention": TEXT, "prior": SOFT}


def profile(
    fusion_profile: FusionProfile,
    criterion: str | None = None,
    *,
    ax: Axes | None = None,
    palette: Palette = None,
) -> Axes:
    """Draw the share of the audio's effect by layer, which decides the window, or one criterion.

    The window is shaded, and bars at the bottom are the 95 % intervals of its ends. The share has its
    simultaneous 95 % band over all layers; a criterion has the 95 % interval over clips of each layer alone.

    Args:
        fusion_profile: a profile from `mata_interp.fusion_layers`.
        criterion: the name of one of its criteria; None: the share.
        ax: where to draw; None: pyplot's current axes.
        palette: for the share, the colours of layers in and outside of the window; for a criterion, its
            colour.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers.

    Raises:
        FigureError: ``fusion_profile`` is no profile, or has no such criterion.

    See Also:
        criteria: a figure of the share and all criteria.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> items = mi.load_benchmark("listening").split("selection")[:4]
        >>> fusion_profile = mi.fusion_layers(lalm, items, criteria=["knockout_last"], progress=False)
        >>> _, ax = plt.subplots()
        >>> mi.plot.profile(fusion_profile, "knockout_last", ax=ax).get_xlabel()
        'layer'
    """
    check_profile(fusion_profile, "profile")
    if criterion is not None and criterion not in fusion_profile.windows:
        raise FigureError(unknown_name("criterion of this profile", criterion, fusion_profile.windows))
    ax = current(ax)
    layers = list(fusion_profile.layers)
    if criterion is None:
        table = draw_share(ax, fusion_profile, palette)
        ax.set_ylabel("share of the effect of audio")
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    else:
        table = draw_criterion(ax, fusion_profile, criterion, palette)
        ax.set_ylabel(f"{label(fusion_profile, criterion)}, {about(fusion_profile, criterion, 'unit')}")
    ax.set(xlabel="layer", xlim=(-0.6, len(layers) - 0.4))
    layer_ticks(ax, layers)
    return keep(ax, table)


def agreement(fusion_profile: FusionProfile, *, ax: Axes | None = None, palette: Palette = None) -> Axes:
    """Draw how much the windows of the criteria overlap, as intersection over union.

    Args:
        fusion_profile: a profile from `mata_interp.fusion_layers`.
        ax: where to draw; None: pyplot's current axes.
        palette: the colour map, by name, or colours to blend.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers: 1 for the same layers, 0 for no common layer.

    Raises:
        FigureError: ``fusion_profile`` is no profile.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> items = mi.load_benchmark("listening").split("selection")[:2]
        >>> fusion_profile = mi.fusion_layers(lalm, items, criteria=["depth"], progress=False)
        >>> _, ax = plt.subplots()
        >>> len(mi.plot.data(mi.plot.agreement(fusion_profile, ax=ax)))  # the window and one criterion
        4
    """
    check_profile(fusion_profile, "agreement")
    ax = current(ax)
    overlap = fusion_profile.agreement
    cells, count = overlap.to_numpy(), len(overlap)
    mesh = ax.pcolormesh(
        np.arange(count), np.arange(count), cells, cmap=colour_map(palette, SHARE_MAP), vmin=0, vmax=1,
        edgecolors="white", linewidth=0.5,
    )  # fmt: skip
    labels = ["recommended", *(label(fusion_profile, name) for name in fusion_profile.windows)]
    ax.set_xticks(range(count), labels, rotation=90)
    ax.set_yticks(range(count), labels)
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.set(aspect="equal")
    write_numbers(ax, mesh, cells, None, ".1f", 1)
    bar = ax.figure.colorbar(mesh, ax=ax, label="overlap of windows (IoU)", shrink=0.6)  # type: ignore[union-attr]
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0)
    names = list(overlap)
    rows = [(a, b, cells[i, j]) for i, a in enumerate(names) for j, b in enumerate(names)]
    return keep(ax, pd.DataFrame(rows, columns=["first", "second", "value"]))


# ----------------------------------------------------------------------------------------------------- panels
def draw_share(axis: Axes, fusion_profile: FusionProfile, palette: Palette) -> pd.DataFrame:
    """The share of each layer with its simultaneous band; layers in the window in a full colour."""
    layers, x = list(fusion_profile.layers), np.arange(len(fusion_profile.layers))
    share, low, high = (
        fusion_profile.share.values,
        fusion_profile.share["low"].values,
        fusion_profile.share["high"].values,
    )
    inside, outside = line_colours(["inside", "outside"], [AUDIO, SOFT] if palette is None else palette)
    bars = axis.bar(
        x, share, color=[inside if layer in fusion_profile.window else outside for layer in layers], width=0.8
    )
    for layer, bar, value, a, b in zip(layers, bars, share, low, high, strict=True):
        tip(bar, f"layer {layer}: {percent(value)} %{ends(a, b, percent)}")
    if np.isfinite(low).all():
        axis.errorbar(
            x, share, np.array([share - low, high - share]), fmt="none", ecolor=INK,
            elinewidth=0.8, capsize=2 if len(layers) <= 20 else 0,
        )  # fmt: skip
    axis.axhline(0, color=INK, linewidth=0.6)
    _window(axis, layers, fusion_profile.window, fusion_profile.boundaries["window"])
    inside_window = [layer in fusion_profile.window for layer in layers]
    return pd.DataFrame(
        {"layer": layers, "value": share, "low": low, "high": high, "in_window": inside_window}
    )


def draw_criterion(axis: Axes, fusion_profile: FusionProfile, name: str, palette: Palette) -> pd.DataFrame:
    """The mean of a criterion over items, with the interval of each layer alone."""
    layers, x = list(fusion_profile.layers), np.arange(len(fusion_profile.layers))
    values = fusion_profile.profiles.sel(criterion=name).values
    colour = colour_of(fusion_profile, name) if palette is None else line_colours([name], palette)[0]
    there = np.isfinite(values).all(1)
    mean, low, high = clustered_interval(values[there], fusion_profile.profiles["cluster"].values[there])
    axis.axhline(0, color="#d9d9d9", linewidth=0.6, zorder=0)
    axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    line = axis.plot(x, mean, color=colour, linewidth=1.2, marker="o", markersize=3)[0]
    form = "{:.3g}".format
    texts = [
        f"layer {layer}: {form(value)}{ends(a, b, form)}"
        for layer, value, a, b in zip(layers, mean, low, high, strict=True)
        if np.isfinite(value)
    ]
    tip(line, label(fusion_profile, name), *texts)
    _window(axis, layers, fusion_profile.windows[name], fusion_profile.boundaries[name])
    return pd.DataFrame({"criterion": name, "layer": layers, "value": mean, "low": low, "high": high})


def _window(axis: Axes, layers: list[int], window: Sequence[int], edges: Sequence[Any]) -> None:
    """Shade the window and draw the intervals of its ends at the bottom of the axes."""
    for first, last in runs(layers.index(layer) for layer in window):
        axis.axvspan(first - 0.5, last + 0.5, color="#000000", alpha=0.07, linewidth=0, zorder=0)
    bottom = axis.get_xaxis_transform()
    for edge in edges:
        for name, side in (("first_interval", -0.5), ("last_interval", 0.5)):
            if edge[name]:
                ends = [layers.index(layer) + side for layer in edge[name]]
                line = {"color": INK, "linewidth": 1.6, "marker": "|", "markersize": 4}
                axis.plot(ends, [0.03, 0.03], transform=bottom, **line)


def about(fusion_profile: FusionProfile, name: str, key: str) -> str:
    return str(fusion_profile.profiles[key].sel(criterion=name).item())


def label(fusion_profile: FusionProfile, name: str) -> str:
    return about(fusion_profile, name, "label")


def colour_of(fusion_profile: FusionProfile, name: str) -> str:
    return EVIDENCE[about(fusion_profile, name, "evidence")]


def check_profile(fusion_profile: Any, function: str) -> None:
    if not isinstance(fusion_profile, FusionProfile):
        raise wrong_type(fusion_profile, function, "a profile from mi.fusion_layers")
