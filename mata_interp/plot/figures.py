"""Whole figures: a fusion profile with all its criteria, and a causal map with all its strengths."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..errors import FigureError
from ..fusion import FusionProfile
from ..interventions import RULES
from ..ranges import layer_range, layers_in
from .canvas import keep, layer_ticks, wrong_type
from .colours import CHANGE_MAP, INK, SOFT
from .maps import ABSENT, CHANGE, add_scale, heads, is_window, layers, windows, write_numbers
from .profiles import EVIDENCE, about, check_profile, colour_of, draw_criterion, draw_share, label

__all__ = ["causal_map", "criteria"]

ROW = 0.5  # inches
ANSWER = 3.0  # rows of the first panel
SHARE = (  # where both were measured
    "The share of a layer is the mean of what hiding the audio there alone costs and what it gives back "
    "where it is hidden in all other layers, relative to the sum over layers. "
)
LEGEND = (
    "Shaded: the window. Bars below: 95 % intervals of its ends over resamples of clips. Error bars of the "
    "share: simultaneous 95 % band over all layers. Bands of the criteria: 95 % interval of each layer alone."
)


def causal_map(data: xr.DataArray, width: float = 7.5, limit: float | None = None) -> Figure:
    """Draw a whole causal map as a figure of its own: heads, single layers, or windows at every strength.

    Sets of layers that are no windows are rows, and strengths are columns. The model, the rule and the number
    of items and clips stand below.

    Args:
        data: a map from `mata_interp.causal_map`, in nats.
        width: of the figure, inches.
        limit: end of the scale, nats, where several maps are to be compared; None: that of this map.

    Returns:
        The figure; `mata_interp.plot.data` of each of its axes returns the numbers.

    Raises:
        FigureError: it is no such map.

    See Also:
        heads, layers, windows: the same on axes of one's own.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening").sample(2)
        >>> effects = mi.causal_map(lalm, items, mi.layer_configs(lalm), progress=False)
        >>> mi.plot.causal_map(effects).savefig("map.pdf")
    """
    if not isinstance(data, xr.DataArray):
        raise wrong_type(data, "causal_map", "a map from mi.causal_map")
    if data.dims == ("layer", "head"):
        figure = Figure(figsize=(width, min(0.9 + 0.24 * data.sizes["layer"], 8)), layout="constrained")
        heads(data, limit=limit, ax=figure.subplots())
    elif data.dims == ("layer",):
        figure = Figure(figsize=(width, 2.6), layout="constrained")
        axes = layers(data, ax=figure.subplots())
        if limit:
            axes.set_ylim(-limit, limit)
    elif data.dims == ("layers", "alpha"):
        figure = (_of_windows if is_window(data) else _of_sets)(data, width, limit)
    else:
        raise FigureError(
            f"plot.causal_map cannot draw the dimensions {data.dims}: give a map from mi.causal_map."
        )
    figure.supxlabel(_note(data, width), fontsize="small", color=SOFT, x=0.01, ha="left", parse_math=False)
    return figure


def criteria(fusion_profile: FusionProfile, width: float = 7.5) -> Figure:
    """Draw a whole profile as a figure of its own: the share that decides the window, then every criterion.

    A criterion's line is the mean over items in its own unit, with the pointwise 95 % interval over
    clips as a band; causal criteria come first. The last panel, if measured, shows each head's direct
    attribution from audio to the log-probability difference.

    Args:
        fusion_profile: a profile from `mata_interp.fusion_layers`.
        width: of the figure, inches; below 5, names stand above the panels.

    Returns:
        The figure; `mata_interp.plot.data` of each of its axes returns the numbers.

    Raises:
        FigureError: ``fusion_profile`` is no profile.

    Examples:
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> items = mi.load_benchmark("listening").split("selection")[:2]
        >>> fusion_profile = mi.fusion_layers(lalm, items, criteria=["depth"], progress=False)
        >>> len(mi.plot.criteria(fusion_profile).axes)
        2
    """
    check_profile(fusion_profile, "criteria")
    wide = width >= 5
    names = _causal_first(fusion_profile)
    note, legend = (
        textwrap.wrap(fusion_profile.summary, int(width * 15)),
        textwrap.wrap(f"{SHARE if fusion_profile.effect is not None else ''}{LEGEND}", int(width * 16)),
    )
    row = ROW if wide else 1.3 * ROW
    head, footer = 0.35 + 0.15 * len(note), 0.62 + 0.14 * len(legend)
    by_head = (
        []
        if fusion_profile.heads is None
        else [min(3.0, max(1.0, 0.25 * fusion_profile.heads.sizes["head"]))]
    )
    ratios = [ANSWER, *[1.0] * len(names), *by_head]
    height = head + row * sum(ratios) + footer
    figure = Figure(figsize=(width, height))
    panels: Sequence[Axes] = np.atleast_1d(
        figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    ).tolist()
    left = (1.9 if wide else 0.5) / width
    figure.subplots_adjust(
        left=left, right=1 - 0.12 / width, bottom=footer / height, top=1 - head / height,
        hspace=0.25 if wide else 0.7,
    )  # fmt: skip
    layers = list(fusion_profile.layers)
    for axis, panel in zip(panels, ("share", *names, "heads"), strict=False):
        axis.set_label(panel)
    keep(panels[0], draw_share(panels[0], fusion_profile, None))
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    _name(panels[0], _headline(fusion_profile), INK, wide, bold=True)
    for axis, name in zip(panels[1:], names, strict=False):
        keep(axis, draw_criterion(axis, fusion_profile, name, None))
        _name(
            axis,
            f"{label(fusion_profile, name)}, {about(fusion_profile, name, 'unit')}",
            colour_of(fusion_profile, name),
            wide,
        )
    for axis in panels:
        axis.set(xlabel="", ylabel="", xlim=(-0.6, len(layers) - 0.4))
        axis.margins(y=0.18)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(bottom=axis is panels[-1], labelsize=7)
        axis.locator_params(axis="y", nbins=3)
    if fusion_profile.heads is not None:
        keep(panels[-1], _heads(panels[-1], fusion_profile.heads))
        _name(panels[-1], "heads: direct attribution, logits", EVIDENCE["gradient"], wide)
    layer_ticks(panels[-1], layers)
    panels[-1].set_xlabel("layer")
    for number, (evidence, colour) in enumerate(EVIDENCE.items()):
        place = 0.02 + (0.13 if wide else 0.24) * number, (footer - 0.56) / height
        figure.text(*place, evidence, color=colour, fontsize=7.5, weight="bold")
    figure.text(0.02, 0.05 / height, "\n".join(legend), va="bottom", fontsize=7, color=INK)
    figure.text(0.02, 1 - 0.1 / height, "\n".join(note), va="top", fontsize=8)
    return figure


# ----------------------------------------------------------------------------------------------- causal maps
def _of_windows(data: xr.DataArray, width: float, limit: float | None) -> Figure:
    """One panel for each strength, with one scale for all."""
    alphas = [float(alpha) for alpha in data["alpha"].values]
    across = min(len(alphas), 3 if width > 5 else 1)
    down = -(-len(alphas) // across)
    figure = Figure(figsize=(width, 0.5 + down * (0.4 + (width - 1) / max(across, 2))), layout="constrained")
    panels: list[Axes] = list(np.ravel(figure.subplots(down, across, sharex=True, sharey=True)))
    for ax, alpha in zip(panels, alphas, strict=False):
        ax.set_label(f"alpha {alpha:g}")
        windows(data, alpha=alpha, colorbar=False, limit=limit, ax=ax)
        ax.label_outer()
    for ax in panels[len(alphas) :]:
        ax.set_visible(False)
    add_scale(panels[: len(alphas)], panels[0].collections[0], CHANGE, floor=data.attrs.get("noise_floor"))
    return figure


def _of_sets(data: xr.DataArray, width: float, limit: float | None) -> Figure:
    """Sets of layers as rows, strengths as columns."""
    figure = Figure(figsize=(width, 1.1 + 0.26 * data.sizes["layers"]), layout="constrained")
    ax = figure.subplots()
    cells = data.transpose("layers", "alpha").values
    finite = np.abs(cells[np.isfinite(cells)])
    bound = limit or float(finite.max(initial=0.0)) or 1.0
    mesh = ax.pcolormesh(
        np.arange(cells.shape[1]), np.arange(cells.shape[0]), np.ma.masked_invalid(cells), cmap=CHANGE_MAP,
        vmin=-bound, vmax=bound, edgecolors="white", linewidth=0.5,
    )  # fmt: skip
    write_numbers(ax, mesh, cells, None, "+.2f", 1)
    ax.set_xticks(range(cells.shape[1]), [f"{alpha:g}" for alpha in data["alpha"].values])
    ax.set_yticks(
        range(cells.shape[0]), [layer_range(layers_in(str(name))) for name in data["layers"].values]
    )
    ax.tick_params(length=0)
    ax.set(xlabel="alpha", ylabel="layers")
    add_scale([ax], mesh, CHANGE, floor=data.attrs.get("noise_floor"))
    keep(ax, data.rename("value").to_dataframe()["value"].reset_index().dropna())
    return figure


def _note(data: xr.DataArray, width: float) -> str:
    """What was edited, of which model, and on how many items, in lines that fit."""
    notes = data.attrs
    defaults = {"queries": "last", "phase": "both"} | ({} if "head" in data.dims else {"heads": "all"})
    rule = notes.get("rule", "")
    verb = RULES[rule].label if rule in RULES else "edited"
    parts = [str(notes.get("method", f"attention to {notes.get('group', 'some tokens')} {verb}"))]
    if "strength" in notes:
        parts.append(f"alpha is {notes['strength']}")
    if rule and (rule not in RULES or RULES[rule].has_strength):
        parts.append(f"rule {rule}" + (f", alpha {notes['alpha']:g}" if "alpha" in notes else ""))
    parts += [f"{name} {notes[name]}" for name, usual in defaults.items() if notes.get(name, usual) != usual]
    if notes.get("model"):
        parts.append(str(notes["model"])[:60])
    if "items" in notes:
        parts.append(f"mean of {notes['items']:,} items of {notes['clips']:,} clips")
    return textwrap.fill("; ".join(parts), int(14 * width))


# --------------------------------------------------------------------------------------- parts of `criteria`
def _heads(axis: Axes, heads: xr.DataArray) -> pd.DataFrame:
    """Layers across, heads up; blue supports the right answer, orange opposes it."""
    values = heads.values
    bound = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0
    axis.set_facecolor(ABSENT)
    axis.pcolormesh(
        np.arange(values.shape[0]), np.arange(values.shape[1]), np.ma.masked_invalid(values.T),
        cmap=CHANGE_MAP, vmin=-bound, vmax=bound, rasterized=values.size > 600,
    )  # fmt: skip
    axis.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.annotate(
        f"limit of the scale: {bound:.2g}", (1, 0), (0, -22), "axes fraction", "offset points", ha="right",
        fontsize=7,
    )  # fmt: skip
    table = heads.rename("value").to_dataframe().reset_index()
    return table.loc[:, ["layer", "head", "value"]].dropna()


def _name(axis: Axes, text: str, colour: str, wide: bool, bold: bool = False) -> None:
    """Write ``text`` beside the axes, or above them in a narrow figure."""
    weight = "bold" if bold else "normal"
    if wide:
        axis.annotate(
            "\n".join(textwrap.wrap(text, 26)), (0, 0.5), (-128, 0), "axes fraction", "offset points",
            va="center", fontsize=7.5, color=colour, weight=weight,
        )  # fmt: skip
    else:
        axis.set_title(text, fontsize=7, color=colour, pad=1, weight=weight, loc="left")


def _headline(fusion_profile: FusionProfile) -> str:
    """Name of the first panel: what it shows, on how many clips, and how stable the window is."""
    parts = ["share of the effect of audio, %", f"{fusion_profile.clips} clips"]
    if fusion_profile.stability is not None:
        parts.append(f"stability {fusion_profile.stability:.0%}")
    return "; ".join(parts)


def _causal_first(fusion_profile: FusionProfile) -> list[str]:
    """Names of the criteria: causal ones, gradients, attention, priors."""
    order = list(EVIDENCE)
    names = [str(name) for name in fusion_profile.profiles["criterion"].values]
    return sorted(names, key=lambda name: order.index(about(fusion_profile, name, "evidence")))
