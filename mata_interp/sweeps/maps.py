"""Ready-made sets of configurations, and what a sweep of them says as a map.

A map is a sweep whose configurations lie on a plane: layer windows by strength, or heads by layers. What is
mapped is the margin of the right option, so that a change is in nats and needs no vocabulary::

    found = mi.sweeps.causal_map(lalm, items, mi.sweeps.head_map(lalm))    # [layer, head]
    mi.figure(found).savefig("heads.png")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.interventions import AttentionEdit, Mata
from mata_interp.ranges import brief
from mata_interp.statistics import clustered_interval

from .sweep import sweep

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["by_alpha", "causal_map", "change", "head_configs", "layer_configs", "margin", "window_configs"]

ALPHAS = (0.1, 0.3, 1.0)
NOTHING = "no intervention"  # the name of the baseline of a map
ENDS = {"first": 0, "last": -1}


def window_configs(
    lalm: LALM,
    alphas: Iterable[float] = ALPHAS,
    rule: str = "abs",
    widths: Iterable[int] | None = None,
    **settings: Any,
) -> dict[str, AttentionEdit]:
    """Every window of neighbouring attention layers under every alpha: "layers 3-5, alpha 0.1" -> Mata.

    Args:
        widths: only windows of so many attention layers; all if not given.
        settings: more of each `Mata`: keys, queries, phase, heads.
    """
    layers, wanted = lalm.attention_layers, None if widths is None else set(widths)
    windows = [layers[i:j] for i in range(len(layers)) for j in range(i + 1, len(layers) + 1)]
    return by_alpha([w for w in windows if wanted is None or len(w) in wanted], alphas, rule, **settings)


def by_alpha(
    windows: Iterable[Sequence[int]], alphas: Iterable[float] = ALPHAS, rule: str = "abs", **settings: Any
) -> dict[str, AttentionEdit]:
    """Each of these sets of layers under every alpha, named as by `window_map`."""
    alphas = tuple(alphas)
    return {
        f"layer{'s' * (len(window) > 1)} {brief(window)}, alpha {alpha:g}": Mata(
            alpha, window, rule, **settings
        )
        for window in windows
        for alpha in alphas
    }


def layer_configs(lalm: LALM, alpha: float = 1.0, rule: str = "knockout", **settings: Any) -> dict[str, AttentionEdit]:
    """Every attention layer alone: "layer 3" -> Mata. By default the audio is knocked out of it."""
    return {f"layer {layer}": Mata(alpha, [layer], rule, **settings) for layer in lalm.attention_layers}


def head_configs(lalm: LALM, alpha: float = 1.0, rule: str = "knockout", **settings: Any) -> dict[str, AttentionEdit]:
    """Every head of every attention layer alone: "layer 3, head 0" -> Mata.

    By default the audio is knocked out of it; with another rule, it is boosted.
    """
    return {
        f"layer {layer}, head {head}": Mata(alpha, [layer], rule, heads=[head], **settings)
        for layer, heads in lalm.structure.heads.items()
        for head in range(heads)
    }


def margin(swept: xr.DataArray) -> xr.DataArray:
    """log p(right option) - log p(best other), nats: ``[item, configuration]``; NaN without a known answer.

    Args:
        swept: from `sweep` over items: ``[item, configuration, choice]`` with ``answer``.
    """
    if "choice" not in swept.dims:
        raise ValueError("A margin needs options: sweep items, not prompts.")
    values, answer = swept.values, swept["answer"].values
    known = answer >= 0
    right = np.arange(values.shape[-1]) == np.where(known, answer, 0)[:, None]  # (item, choice)
    best = np.where(right[:, None] | np.isnan(values), -np.inf, values).max(-1)
    told = np.take_along_axis(values, np.where(known, answer, 0)[:, None, None], -1)[..., 0]
    out = swept.isel(choice=0, drop=True).copy(data=np.where(known[:, None], told - best, np.nan))
    return out.rename("margin")


def causal_map(
    lalm: LALM, items: Item | Sequence[Item], configurations: Mapping[str, AttentionEdit], **how: Any
) -> xr.DataArray:
    """From items to the map: `sweep` of these configurations and of none, and the `change` they make.

    Args:
        configurations: from `window_map`, `layer_map` or `head_map`.
        how: ``batch_size``, ``block`` and ``progress`` of `sweep`.
    """
    swept = sweep(lalm, items, {NOTHING: None, **configurations}, **how)
    return change(swept, configurations, NOTHING)


def change(swept: xr.DataArray, configurations: Mapping[str, AttentionEdit], baseline: str) -> xr.DataArray:
    """Mean change of the margin over items, nats, as a map.

    Args:
        swept: a sweep of ``baseline`` (no intervention) and ``configurations``.
        configurations: from `window_map` (-> ``[layers, alpha]``), `layer_map` (-> ``[layer]``) or `head_map`
            (-> ``[layer, head]``, NaN for heads that a layer does not have).

    Returns:
        the map. ``low`` and ``high``, the 95 % bootstrap interval over clips of each place by itself, are
        coordinates of it, and ``first`` and ``last`` of a window. Among its attributes: ``items`` and
        ``clips`` it is a mean of (those with a known answer), rule, group (of keys), queries, phase and alpha
        where all configurations have the same, and those of the sweep.

    Raises:
        ValueError: two configurations would stand at the same place.
    """
    margins = margin(swept)
    moved = margins.sel(configuration=list(configurations)) - margins.sel(configuration=baseline, drop=True)
    known = moved.isel(item=(swept["answer"] >= 0).values)
    if not known.sizes["item"]:
        raise ValueError("No item has a known answer, so there is no margin to map.")
    clusters = known["cluster"].values
    dims, places = _places(list(configurations.values()))
    if len(set(places)) < len(places):
        raise ValueError("Two configurations stand at the same place of the map: map them one by one.")
    axes = [list(dict.fromkeys(place[axis] for place in places)) for axis in range(len(places[0]))]
    planes = np.full((3, *map(len, axes)), np.nan)
    for place, values in zip(places, np.stack(clustered_interval(known.values, clusters), 1), strict=True):
        planes[:, *(axis.index(at) for axis, at in zip(axes, place, strict=True))] = values
    coords: dict[Any, Any] = dict(zip(dims, axes, strict=True))
    coords |= {"low": (dims, planes[1]), "high": (dims, planes[2])}
    if dims[0] == "layers":
        of = {brief(mata.layers): mata.layers for mata in configurations.values()}
        coords |= {end: ("layers", [of[name][at] for name in axes[0]]) for end, at in ENDS.items()}
    counts = {"items": known.sizes["item"], "clips": len(set(map(str, clusters)))}
    notes = {**swept.attrs, **counts, **_shared_settings(list(configurations.values()))}
    return xr.DataArray(planes[0], coords, dims, "change of margin", notes)


def _places(configurations: Sequence[AttentionEdit]) -> tuple[tuple[str, ...], list[tuple]]:
    """The dimensions of a map, by what differs between its configurations, and where each of them lies."""
    if any(mata.heads != "all" for mata in configurations):
        return ("layer", "head"), [(mata.layers[0], mata.heads[0]) for mata in configurations]
    if all(len(mata.layers) == 1 for mata in configurations) and len({m.alpha for m in configurations}) == 1:
        return ("layer",), [mata.layers for mata in configurations]
    return ("layers", "alpha"), [(brief(mata.layers), mata.alpha) for mata in configurations]


def _shared_settings(configurations: Sequence[AttentionEdit]) -> dict[str, Any]:
    """What all configurations have in common."""
    # the group of keys is not called "keys": an array with keys is a dict to xarray
    names = {"rule": "rule", "group": "keys", "queries": "queries", "phase": "phase", "alpha": "alpha"}
    of = {name: {getattr(mata, field) for mata in configurations} for name, field in names.items()}
    return {name: values.pop() for name, values in of.items() if len(values) == 1}
