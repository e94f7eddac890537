"""The section on attention: which tokens the answering token attends to without intervention."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import xarray as xr

from ..plot.attention import share_of, share_table
from ..tracing import audio_share
from .figures.heat_map import heat_map
from .figures.profile import profile
from .figures.svg import figure_part
from .parts import Section
from .wording import count, named_layers, percent, printable


def attention_section(trace: xr.Dataset, window: Collection[int]) -> Section:
    """Heat map and profile of a trace; ``window`` has the edited layers, if any."""
    share = audio_share(trace, sink=False)
    layers = [int(layer) for layer in trace["layer"].values]
    of_heads = share.mean("item", skipna=True).transpose("layer", "head")
    by_head = of_heads.values
    by_layer = share_table(share_of(share, "share"))
    mean = by_layer["value"].to_numpy()
    mass = trace["mass"].mean(("item", "head"), skipna=True)
    groups = {str(g): mass.sel(group=g).values for g in trace["group"].values}
    n_clips = len(set(map(str, trace["cluster"].values)))
    sample = (
        f"{count(trace.sizes['item'], 'item')} of {count(n_clips, 'selection clip')}, without intervention"
    )
    heat = figure_part(
        "heat-map",
        lambda width: heat_map(of_heads, window, width),
        "Audio share by layer and head",
        "Audio share of the answering token's attention, by layer and head.",
        "Share of audio in the attention of the last prompt token, the sink (first token) left out; mean "
        f"over {sample}. {_heat_reading(by_head, mean, layers)}{_window_reading(mean, layers, window)}",
    )
    lines = figure_part(
        "profile",
        lambda width: profile(trace, by_layer, window, width),
        "Attention by layer and group",
        "Attention by layer and token group.",
        f"Top: mean over heads of the attention on each group of tokens; {sample}. Bottom: the layer means "
        f"of the figure above with a 95 % interval over clips. {_profile_reading(groups)} "
        "Attention is not contribution: attended tokens need not affect the answer. Only interventions "
        "test that.",
    )
    return Section("attention", "Attention to audio", [("figure", heat), ("figure", lines)])


def _heat_reading(by_head: np.ndarray, by_layer: np.ndarray, layers: list[int]) -> str:
    most, least = int(np.nanargmax(by_layer)), int(np.nanargmin(by_layer))
    row, head = np.unravel_index(np.nanargmax(by_head), by_head.shape)
    return (
        f"The mean over all layers is {percent(float(by_layer.mean()), 0)}; it is largest in layer "
        f"{layers[most]} ({percent(by_layer[most], 0)}) and smallest in layer {layers[least]} "
        f"({percent(by_layer[least], 0)}). The head with the largest share is head {head} of layer "
        f"{layers[row]} ({percent(by_head[row, head], 0)}). "
    )


def _window_reading(by_layer: np.ndarray, layers: list[int], window: Collection[int]) -> str:
    inside = np.array([layer in window for layer in layers])
    if not inside.any() or inside.all():
        return ""
    return (
        f"MATA edits {named_layers(window)} (outlined): mean share {percent(by_layer[inside].mean(), 0)}, "
        f"against {percent(by_layer[~inside].mean(), 0)} in the other layers."
    )


def _profile_reading(groups: dict[str, np.ndarray]) -> str:
    means = {name: float(np.nanmean(part)) for name, part in groups.items()}
    order = sorted((name for name in means if means[name] > 0), key=lambda name: -means[name])
    parts = ", ".join(f"{printable(name)} {percent(means[name], 0)}" for name in order)
    return f"Mean over all layers: {parts}."
