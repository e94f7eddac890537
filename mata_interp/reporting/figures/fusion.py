"""A fusion profile: first the answer, the share of the effect by layer; then every criterion."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...fusion import FusionProfile
from ...ranges import runs
from ...statistics import clustered_interval
from .heads import ABSENT
from .palette import AUDIO, CHANGE_MAP, INK, SOFT, TEXT
from .svg import figure_style

__all__ = ["fusion"]

COLOURS = {"causal": AUDIO, "gradient": "#009e73", "attention": TEXT, "prior": SOFT}
ROW = 0.5  # inches
ANSWER = 3.0  # rows of the first panel
LEGEND = (
    "Shaded: the window. Bars below: 95 % intervals of its ends over resamples of clips. Error bars of the "
    "share: simultaneous 95 % band over all layers. Bands of the criteria: 95 % interval of each layer alone."
)


def fusion(found: FusionProfile, width: float) -> Figure:
    """Draw a profile: first the share of the effect that decides the window, then every criterion.

    The share has its simultaneous 95 % band. A criterion's line is the mean over items in its own unit, with
    the pointwise 95 % bootstrap interval over clips as a band; causal criteria come first. Windows are
    shaded, and bars at the bottom are the 95 % intervals of their ends. The last panel, if measured, shows
    each head's direct attribution from audio to the margin.
    """
    with figure_style("fusion"):
        names = _causal_first(found)
        note = textwrap.wrap(found.summary, int(width * 15))
        row = ROW if width >= 5 else 1.3 * ROW  # in a narrow figure names stand above the axes
        head, footer = 0.35 + 0.15 * len(note), 0.62 + 0.14 * len(textwrap.wrap(LEGEND, int(width * 16)))
        by_head = [] if found.heads is None else [min(3.0, max(1.0, 0.25 * found.heads.sizes["head"]))]
        ratios = [ANSWER, *[1.0] * len(names), *by_head]
        height = head + row * sum(ratios) + footer
        figure = Figure(figsize=(width, height))
        axes = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
        rows: Sequence[Axes] = np.atleast_1d(axes).tolist()
        layers, clusters = list(found.layers), found.profiles["cluster"].values
        x = np.arange(len(layers))
        _answer(rows[0], found)
        _name(rows[0], _headline(found), INK, width >= 5, bold=True)
        for axis, name in zip(rows[1:], names, strict=False):
            profile = found.profiles.sel(criterion=name)
            colour = COLOURS[str(profile["evidence"].item())]
            there = np.isfinite(profile.values).all(1)
            mean, low, high = clustered_interval(profile.values[there], clusters[there])
            axis.axhline(0, color="#d9d9d9", linewidth=0.6, zorder=0)
            axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            sns.lineplot(x=x, y=mean, ax=axis, color=colour, linewidth=1.2, marker="o", markersize=3)
            _window(axis, layers, found.windows[name], found.boundaries[name])
            _name(axis, f"{profile['label'].item()}, {profile['unit'].item()}", colour, width >= 5)
        for axis in rows:
            axis.set(xlabel="", ylabel="", xlim=(-0.6, len(layers) - 0.4))
            axis.margins(y=0.18)
            axis.tick_params(bottom=axis is rows[-1], labelsize=7)
            axis.locator_params(axis="y", nbins=3)
        if found.heads is not None:
            _heads(rows[-1], found.heads)
            _name(rows[-1], "heads: direct attribution, logits", COLOURS["gradient"], width >= 5)
        step = max(1, -(-len(layers) // (10 if width < 5 else 20)))
        rows[-1].set_xticks(x[::step], [str(layer) for layer in layers[::step]])
        rows[-1].set_xlabel("layer")
        for number, (evidence, colour) in enumerate(COLOURS.items()):
            figure.text(
                0.02 + (0.13 if width >= 5 else 0.24) * number,
                (footer - 0.56) / height,
                evidence,
                color=colour,
                fontsize=7.5,
                weight="bold",
            )
        figure.text(
            0.02,
            0.05 / height,
            "\n".join(textwrap.wrap(LEGEND, int(width * 16))),
            va="bottom",
            fontsize=7,
            color=INK,
        )
        figure.text(0.02, 1 - 0.1 / height, "\n".join(note), va="top", fontsize=8)
        left = (1.9 if width >= 5 else 0.5) / width
        figure.subplots_adjust(
            left=left,
            right=1 - 0.12 / width,
            bottom=footer / height,
            top=1 - head / height,
            hspace=0.25 if width >= 5 else 0.7,
        )
        return figure


def _causal_first(found: FusionProfile) -> list[str]:
    """Names of the criteria: causal ones, gradients, attention, priors."""
    order, evidence = list(COLOURS), found.profiles["evidence"]
    names = [str(name) for name in found.profiles["criterion"].values]
    return sorted(names, key=lambda name: order.index(str(evidence.sel(criterion=name).item())))


def _headline(found: FusionProfile) -> str:
    """Name of the first panel: what it shows, on how many clips, and how stable the window is."""
    parts = ["share of the effect of audio, %", f"{found.clips} clips"]
    if found.stability is not None:
        parts.append(f"stability {found.stability:.0%}")
    return "; ".join(parts)


def _answer(axis: Axes, found: FusionProfile) -> None:
    """The share of each layer with its simultaneous band; layers in the window in a full colour."""
    layers, x = list(found.layers), np.arange(len(found.layers))
    share = found.share.values
    colours = [AUDIO if layer in found.window else SOFT for layer in layers]
    axis.bar(x, 100 * share, color=colours, width=0.8)
    low, high = found.share["low"].values, found.share["high"].values
    if np.isfinite(low).all():
        axis.errorbar(
            x, 100 * share, 100 * np.array([share - low, high - share]), fmt="none", ecolor=INK,
            elinewidth=0.8, capsize=2 if len(layers) <= 20 else 0,
        )  # fmt: skip
    axis.axhline(0, color=INK, linewidth=0.6)
    _window(axis, layers, found.window, found.boundaries["window"])


def _heads(axis: Axes, heads: xr.DataArray) -> None:
    """Layers on x, heads on y; blue supports the right answer, orange opposes it."""
    values = heads.values
    bound = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0
    axis.set_facecolor(ABSENT)
    mesh = axis.pcolormesh(
        np.arange(values.shape[0]), np.arange(values.shape[1]), np.ma.masked_invalid(values.T),
        cmap=CHANGE_MAP, vmin=-max(bound, 1e-9), vmax=max(bound, 1e-9), shading="nearest",
    )  # fmt: skip
    mesh.set_rasterized(values.size > 600)
    axis.set(xlim=(-0.6, len(values) - 0.4), ylim=(-0.5, values.shape[1] - 0.5))
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.annotate(
        f"limit of the scale: {bound:.2g}",
        (1, 0),
        (0, -22),
        "axes fraction",
        "offset points",
        ha="right",
        fontsize=7,
    )


def _name(axis: Axes, text: str, colour: str, wide: bool, bold: bool = False) -> None:
    """Write ``text`` beside the axis, or above it in a narrow figure."""
    weight = "bold" if bold else "normal"
    if wide:
        lines = "\n".join(textwrap.wrap(text, 26))
        axis.annotate(
            lines, (0, 0.5), (-128, 0), "axes fraction", "offset points", va="center", fontsize=7.5,
            color=colour, weight=weight,
        )  # fmt: skip
    else:
        axis.set_title(text, fontsize=7, color=colour, pad=1, weight=weight)


def _window(axis: Axes, layers: list[int], window: Sequence[int], edges: Sequence[dict]) -> None:
    """Shade the window and draw the intervals of its ends at the bottom of the axis."""
    for first, last in runs(layers.index(layer) for layer in window):
        axis.axvspan(first - 0.5, last + 0.5, color="#000000", alpha=0.07, linewidth=0, zorder=0)
    bottom = axis.get_xaxis_transform()
    for edge in edges:
        for name, side in (("first_interval", -0.5), ("last_interval", 0.5)):
            if edge[name]:
                ends = [layers.index(layer) + side for layer in edge[name]]
                axis.plot(
                    ends, [0.03, 0.03], transform=bottom, color=INK, linewidth=1.6, marker="|", markersize=4
                )
