"""mi.figure: maps of sweeps and fusion profiles as figures."""

from __future__ import annotations

import textwrap

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..errors import FigureError
from ..fusion import FusionProfile
from ..interventions import RULES
from ..ranges import layer_range, layers_in
from .figures.fusion import fusion
from .figures.grid import grid
from .figures.heads import heads
from .figures.single import single
from .figures.svg import WIDE, figure_style
from .figures.window_heatmap import window_heatmap
from .wording import count, printable

__all__ = ["figure", "window_cube"]


def figure(data: xr.DataArray | FusionProfile, width: float = WIDE) -> Figure:
    """Draw a causal map (windows by alpha, single layers, or heads) or a fusion profile.

    Args:
        data: a map from `causal_map`, in nats of margin, or a profile from
            `mata_interp.fusion_layers`.
        width: of the figure, inches.

    Returns:
        A matplotlib figure. The number of items that a map averages stands below it.

    Raises:
        FigureError: ``data`` is neither a map nor a profile.

    Examples:
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> items = mi.load_benchmark("listening").split("selection")[:2]
        >>> configs = mi.layer_configs(lalm)
        >>> causal_map = mi.causal_map(lalm, items, configs, progress=False)
        >>> mi.figure(causal_map).savefig("map.png", dpi=200)  # doctest: +SKIP
    """
    if isinstance(data, FusionProfile):
        return fusion(data, width)
    with figure_style("map"):
        if data.dims == ("layer", "head"):
            layers = [int(layer) for layer in data["layer"].values]
            return heads(data.values, layers, _title(data, "each head alone"), width, _note(data, width))
        if data.dims == ("layer",):
            layers = [int(layer) for layer in data["layer"].values]
            low, high = data["low"].values, data["high"].values
            note = _note(data, width, "lines: 95 % bootstrap interval over clips, each layer alone")
            return single(data.values, low, high, layers, _title(data, "each layer alone"), width, note)
        if data.dims == ("layers", "alpha"):
            alphas = [float(alpha) for alpha in data["alpha"].values]
            cube, layers = window_cube(data)
            if cube is not None:
                title = _title(data, "every window of layers")
                return window_heatmap(cube, layers, alphas, None, width, title, _note(data, width))
            rows = [layer_range(layers_in(str(name))) for name in data["layers"].values]
            return grid(data.values, rows, [f"{alpha:g}" for alpha in alphas], None, width)
    raise FigureError(
        f"cannot draw an array with dimensions {data.dims}: give a map from mi.causal_map, or a profile from "
        "mi.fusion_layers."
    )


def window_cube(data: xr.DataArray) -> tuple[np.ndarray | None, list[int]]:
    """A map of windows as [alpha, width - 1, first], and the layers; None if a set of layers is no window."""
    sets = [list(layers_in(str(name))) for name in data["layers"].values]
    layers = sorted({layer for some in sets for layer in some})
    cube = np.full((data.sizes["alpha"], max(map(len, sets)), len(layers)), np.nan)
    for row, some in enumerate(sets):
        first = layers.index(some[0])
        if layers[first : first + len(some)] != some:
            return None, layers
        cube[:, len(some) - 1, first] = data.values[row]
    return cube, layers


def _title(data: xr.DataArray, where: str) -> str:
    notes = data.attrs
    if "method" in notes:
        return f"{printable(notes['method'])}, in {where}"
    keys = notes.get("group", "some tokens")
    label = RULES[notes["rule"]].label if notes.get("rule") in RULES else "edited"
    return f"Attention to {printable(keys)} {label}, in {where}"


def _note(data: xr.DataArray, width: float, more: str = "") -> str:
    """Model, rule, settings other than the defaults, and number of items and clips, in lines that fit."""
    notes = data.attrs
    defaults = {"group": "audio", "queries": "last", "phase": "both"}
    if "head" not in data.dims:
        defaults["heads"] = "all"
    parts = [printable(notes.get("model", ""), 40)]
    if "strength" in notes:
        parts.append(f"alpha is {printable(notes['strength'])}")
    if "rule" in notes and (notes["rule"] not in RULES or RULES[notes["rule"]].has_strength):
        parts.append(f"rule {notes['rule']}" + (f", alpha {notes['alpha']:g}" if "alpha" in notes else ""))
    parts += [
        f"{name} {notes[name]}" for name, default in defaults.items() if notes.get(name, default) != default
    ]
    parts.append(f"mean of {count(notes['items'], 'item')} of {count(notes['clips'], 'clip')}")
    return textwrap.fill("; ".join(part for part in [*parts, more] if part), int(14 * (width - 0.7)))
