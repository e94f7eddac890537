"""The section on attention: where the answering token looks when nothing is edited."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import xarray as xr

from ..statistics import clustered_interval
from ..tracing import audio_share
from .figures.heat_map import heat_map
from .figures.profile import profile
from .figures.svg import responsive
from .parts import FigurePart, Section
from .wording import count, named_layers, percent, printable


def attention_section(trace: xr.Dataset, window: Collection[int]) -> Section:
    """Heat map and profile of a trace; ``window`` holds the layers that are edited, if any."""
    share = audio_share(trace, sink=False)
    layers = [int(layer) for layer in trace["layer"].values]
    by_head = share.mean("item", skipna=True).transpose("layer", "head").values
    by_item = share.mean("head", skipna=True).transpose("item", "layer").values
    clusters = trace["cluster"].values
    mean, low, high = clustered_interval(by_item, clusters)
    mass = trace["mass"].mean(("item", "head"), skipna=True)
    groups = {str(g): mass.sel(group=g).values for g in trace["group"].values}
    n_clips = len(set(map(str, clusters)))
    sample = f"{count(trace.sizes['item'], 'item')} of {count(n_clips, 'selection clip')}, no intervention"
    heat = FigurePart(
        "heat-map",
        responsive(
            lambda width: heat_map(by_head, layers, window, width), "heat", "Audio share by layer and head"
        ),
        "How much of its attention the answering token gives to the sound.",
        "Share of audio in the attention of the last prompt token, the sink (first token) left out; mean "
        f"over {sample}. {_heat_reading(by_head, mean, layers)}{_window_reading(mean, layers, window)}",
    )
    lines = FigurePart(
        "profile",
        responsive(
            lambda width: profile(groups, mean, low, high, layers, window, width),
            "profile",
            "Attention by layer and group",
        ),
        "What the attention falls on, layer by layer.",
        f"Above: mean over heads of the attention on each group of tokens; {sample}. Below: the layer means "
        f"of the figure above with a 95 % bootstrap interval over clips. {_profile_reading(groups)} "
        "Attention is not contribution: what is looked at need not reach the answer. The edits below test "
        "that.",
    )
    return Section("attention", "Where it listens", [("figure", heat), ("figure", lines)])


def _heat_reading(by_head: np.ndarray, by_layer: np.ndarray, layers: list[int]) -> str:
    most, least = int(np.nanargmax(by_layer)), int(np.nanargmin(by_layer))
    row, head = np.unravel_index(np.nanargmax(by_head), by_head.shape)
    return (
        f"Over all layers it is {percent(float(by_layer.mean()), 0)}: most in layer {layers[most]} "
        f"({percent(by_layer[most], 0)}), least in layer {layers[least]} ({percent(by_layer[least], 0)}). "
        f"The head that listens most is head {head} of layer {layers[row]} "
        f"({percent(by_head[row, head], 0)}). "
    )


def _window_reading(by_layer: np.ndarray, layers: list[int], window: Collection[int]) -> str:
    inside = np.array([layer in window for layer in layers])
    if not inside.any() or inside.all():
        return ""
    return (
        f"MATA edits {named_layers(window)} (outlined): mean share {percent(by_layer[inside].mean(), 0)}, "
        f"against {percent(by_layer[~inside].mean(), 0)} in the others."
    )


def _profile_reading(groups: dict[str, np.ndarray]) -> str:
    means = {name: float(np.nanmean(part)) for name, part in groups.items()}
    order = sorted((name for name in means if means[name] > 0), key=lambda name: -means[name])
    parts = ", ".join(f"{printable(name)} {percent(means[name], 0)}" for name in order)
    return f"Mean over all layers: {parts}."
