"""mi.figure: a map of a sweep as a figure."""

from __future__ import annotations

import textwrap

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..fusion import FusionProfile
from ..interventions import RULES
from ..ranges import layer_range, layers_in
from .figures.fusion import fusion
from .figures.grid import grid
from .figures.heads import heads
from .figures.pyramid import pyramid
from .figures.single import single
from .figures.svg import WIDE, figure_style
from .wording import count, printable

__all__ = ["figure", "pyramid_of"]


def figure(found: xr.DataArray | FusionProfile, width: float = WIDE) -> Figure:
    """Draw a map: windows by alpha, single layers, or heads; in nats of margin, white where nothing moved.

    Args:
        found: from `mata_interp.sweeps.change` or `causal_map`, or from `mata_interp.fusion_layers`.
        width: in inches.

    Returns:
        a matplotlib figure: ``mi.figure(found).savefig("map.png", dpi=200)``. What it is a mean of stands
        below it.
    """
    if isinstance(found, FusionProfile):
        return fusion(found, width)
    with figure_style("map"):
        if found.dims == ("layer", "head"):
            layers = [int(layer) for layer in found["layer"].values]
            return heads(found.values, layers, _title(found, "each head alone"), width, _note(found, width))
        if found.dims == ("layer",):
            layers = [int(layer) for layer in found["layer"].values]
            low, high = found["low"].values, found["high"].values
            note = _note(found, width, "lines: 95 % bootstrap interval over clips, each layer by itself")
            return single(found.values, low, high, layers, _title(found, "each layer alone"), width, note)
        if found.dims == ("layers", "alpha"):
            alphas = [float(alpha) for alpha in found["alpha"].values]
            cube, layers = pyramid_of(found)
            if cube is not None:
                title = _title(found, "every window of layers")
                return pyramid(cube, layers, alphas, None, width, title, _note(found, width))
            rows = [layer_range(layers_in(str(name))) for name in found["layers"].values]
            return grid(found.values, rows, [f"{alpha:g}" for alpha in alphas], None, width)
    raise ValueError(f"No figure of a map of {found.dims}: give what change or causal_map returned.")


def pyramid_of(found: xr.DataArray) -> tuple[np.ndarray | None, list[int]]:
    """[alpha, width - 1, first] of a map of windows, and the layers; None where they are no windows."""
    sets = [list(layers_in(str(name))) for name in found["layers"].values]
    layers = sorted({layer for some in sets for layer in some})
    cube = np.full((found.sizes["alpha"], max(map(len, sets)), len(layers)), np.nan)
    for row, some in enumerate(sets):
        first = layers.index(some[0])
        if layers[first : first + len(some)] != some:
            return None, layers
        cube[:, len(some) - 1, first] = found.values[row]
    return cube, layers


def _title(found: xr.DataArray, where: str) -> str:
    notes = found.attrs
    keys = notes.get("group", "some tokens")
    label = RULES[notes["rule"]].label if notes.get("rule") in RULES else "edited"
    return f"Attention to {printable(keys)} {label}, in {where}"


def _note(found: xr.DataArray, width: float, more: str = "") -> str:
    """Model, rule and what is not the default, and what the numbers are a mean of; in lines that fit."""
    notes = found.attrs
    usual = {"group": "audio", "queries": "last", "phase": "both"}
    if "head" not in found.dims:
        usual["heads"] = "all"
    told = [printable(notes.get("model", ""), 40)]
    if "rule" in notes and (notes["rule"] not in RULES or RULES[notes["rule"]].has_strength):
        told.append(f"rule {notes['rule']}" + (f", alpha {notes['alpha']:g}" if "alpha" in notes else ""))
    told += [f"{name} {notes[name]}" for name, plain in usual.items() if notes.get(name, plain) != plain]
    told.append(f"mean of {count(notes['items'], 'item')} of {count(notes['clips'], 'clip')}")
    return textwrap.fill("; ".join(part for part in [*told, more] if part), int(14 * (width - 0.7)))
