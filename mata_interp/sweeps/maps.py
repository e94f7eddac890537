"""Ready-made sets of configurations, and what a sweep of them says as a map.

A map is a sweep whose configurations lie on a plane: layer windows by strength, or heads by layers. What is
mapped is the margin of the right option, so that a change is in nats and needs no vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from mata_interp.interventions import Mata

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["by_alpha", "change", "head_map", "layer_map", "margin", "window_map"]

ALPHAS = (0.1, 0.3, 1.0)


def window_map(
    lalm: LALM, alphas: Iterable[float] = ALPHAS, rule: str = "abs", widths: Sequence[int] | None = None
) -> dict[str, Mata]:
    """Every window of neighbouring attention layers under every alpha: "layers 3-5, alpha 0.1" -> Mata.

    Args:
        widths: only windows of so many attention layers; all if not given.
    """
    layers = lalm.attention_layers
    windows = [layers[i:j] for i in range(len(layers)) for j in range(i + 1, len(layers) + 1)]
    return by_alpha([w for w in windows if widths is None or len(w) in widths], alphas, rule)


def by_alpha(
    windows: Iterable[Sequence[int]], alphas: Iterable[float] = ALPHAS, rule: str = "abs"
) -> dict[str, Mata]:
    """Each of these windows of layers under every alpha, named as by `window_map`."""
    alphas = tuple(alphas)
    return {
        f"layers {window[0]}-{window[-1]}, alpha {alpha:g}": Mata(alpha, window, rule)
        for window in windows
        for alpha in alphas
    }


def layer_map(lalm: LALM, alpha: float = 1.0, rule: str = "knockout") -> dict[str, Mata]:
    """Every attention layer alone: "layer 3" -> Mata. By default the audio is knocked out of it."""
    return {f"layer {layer}": Mata(alpha, [layer], rule) for layer in lalm.attention_layers}


def head_map(lalm: LALM, alpha: float = 1.0, rule: str = "knockout") -> dict[str, Mata]:
    """Every head of every attention layer alone: "layer 3, head 0" -> Mata; the audio is knocked out."""
    return {
        f"layer {layer}, head {head}": Mata(alpha, [layer], rule, heads=[head])
        for layer, heads in lalm.anatomy.heads.items()
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


def change(swept: xr.DataArray, configurations: Mapping[str, Mata], baseline: str) -> xr.DataArray:
    """Mean change of the margin over items, nats, as a map.

    Args:
        swept: a sweep of ``baseline`` (no intervention) and ``configurations``.
        configurations: from `window_map` (-> ``[layers, alpha]``), `layer_map` (-> ``[layer]``) or `head_map`
            (-> ``[layer, head]``, NaN for heads that a layer does not have).

    Returns:
        the map, with the number of ``items`` it is a mean of among its attributes.

    Raises:
        ValueError: two configurations would stand at the same place.
    """
    margins = margin(swept)
    moved = margins.sel(configuration=list(configurations)) - margins.sel(configuration=baseline, drop=True)
    mean = moved.mean("item", skipna=True).values
    items = int(moved.notnull().all("configuration").sum())
    dims, places = _places(list(configurations.values()))
    if len(set(places)) < len(places):
        raise ValueError("Two configurations stand at the same place of the map: map them one by one.")
    axes = [list(dict.fromkeys(place[axis] for place in places)) for axis in range(len(places[0]))]
    plane = np.full([len(axis) for axis in axes], np.nan)
    for place, value in zip(places, mean, strict=True):
        plane[tuple(axis.index(at) for axis, at in zip(axes, place, strict=True))] = value
    return xr.DataArray(plane, dict(zip(dims, axes, strict=True)), dims, "change of margin", {"items": items})


def _places(configurations: Sequence[Mata]) -> tuple[tuple[str, ...], list[tuple]]:
    """The dimensions of a map, by what differs between its configurations, and where each of them lies."""
    if any(mata.heads != "all" for mata in configurations):
        return ("layer", "head"), [(mata.layers[0], mata.heads[0]) for mata in configurations]
    if all(len(mata.layers) == 1 for mata in configurations) and len({m.alpha for m in configurations}) == 1:
        return ("layer",), [mata.layers for mata in configurations]
    places = [(f"{mata.layers[0]}-{mata.layers[-1]}", mata.alpha) for mata in configurations]
    return ("layers", "alpha"), places
