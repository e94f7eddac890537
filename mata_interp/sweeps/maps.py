"""Sets of configurations, and a sweep of them as a map.

A map is a sweep whose configurations lie on a grid: layer windows by strength, single layers, or heads by
layers. It shows the change of the margin of the right option, in nats::

    heads = mi.causal_map(lalm, items, mi.head_configs(lalm))    # [layer, head]
    mi.plot.heads(heads)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.errors import ArgumentError, InterventionError
from mata_interp.interventions import DEFAULT_ALPHAS, AttentionEdit
from mata_interp.interventions.catalogue import ActivationPatch
from mata_interp.ranges import brief
from mata_interp.statistics import clustered_interval, noise_floor

from .measures import margin

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = [
    "by_alpha",
    "causal_map",
    "change",
    "head_configs",
    "layer_configs",
    "layer_windows",
    "patch_configs",
    "widths_up_to_half",
    "window_configs",
]

NOTHING = "no intervention"  # the name of a map's baseline
SHARED = ("rule", "keys", "queries", "phase")  # the same in all configurations of a map


def window_configs(
    lalm: LALM,
    alphas: Iterable[float] = DEFAULT_ALPHAS,
    rule: str = "abs",
    widths: Iterable[int] | None = None,
    **settings: Any,
) -> dict[str, AttentionEdit]:
    """Every window of neighbouring attention layers at every alpha: "layers 3-5, alpha 0.1" -> edit.

    Args:
        lalm: the model.
        alphas: strengths.
        rule: one of RULES.
        widths: numbers of attention layers in a window; all if None.
        settings: other arguments of `AttentionEdit`: keys, queries, phase, heads.

    Example:
        >>> import mata_interp as mi
        >>> configs = mi.window_configs(mi.LALM.from_pretrained("organism"), alphas=[0.5], widths=[2])
        >>> list(configs)[:2]
        ['layers 0-1, alpha 0.5', 'layers 1-2, alpha 0.5']
    """
    return by_alpha(layer_windows(lalm, widths), alphas, rule, **settings)


def layer_windows(lalm: LALM, widths: Iterable[int] | None = None) -> list[tuple[int, ...]]:
    """Every window of neighbouring attention layers.

    Args:
        lalm, widths: those of `window_configs`.
    """
    layers = tuple(lalm.attention_layers)
    allowed = range(1, len(layers) + 1) if widths is None else set(widths)
    return [
        layers[first:stop]
        for first in range(len(layers))
        for stop in range(first + 1, len(layers) + 1)
        if stop - first in allowed
    ]


def widths_up_to_half(lalm: LALM) -> range:
    """The widths of windows that a study tries: up to half of the attention layers."""
    return range(1, max(1, len(lalm.attention_layers) // 2) + 1)


def by_alpha(
    windows: Iterable[Sequence[int]],
    alphas: Iterable[float] = DEFAULT_ALPHAS,
    rule: str = "abs",
    **settings: Any,
) -> dict[str, AttentionEdit]:
    """Each of these sets of layers at every alpha, named as by `window_configs`.

    Args:
        windows: sets of layers.
        alphas, rule, settings: those of `window_configs`.
    """
    alphas = tuple(alphas)
    configs = {}
    for window in windows:
        layers = f"layer{'s' * (len(window) > 1)} {brief(window)}"
        for alpha in alphas:
            configs[f"{layers}, alpha {alpha:g}"] = AttentionEdit(alpha, window, rule, **settings)
    return configs


def layer_configs(
    lalm: LALM, alpha: float = 1.0, rule: str = "knockout", **settings: Any
) -> dict[str, AttentionEdit]:
    """Every attention layer alone: "layer 3" -> edit; by default a knockout of the audio.

    Args:
        lalm, rule, settings: those of `window_configs`.
        alpha: strength.

    Example:
        >>> import mata_interp as mi
        >>> mi.layer_configs(mi.LALM.from_pretrained("organism"))["layer 3"]
        AttentionEdit(1.0, layers=(3,), rule='knockout')
    """
    configs = {}
    for layer in lalm.attention_layers:
        configs[f"layer {layer}"] = AttentionEdit(alpha, [layer], rule, **settings)
    return configs


def head_configs(
    lalm: LALM, alpha: float = 1.0, rule: str = "knockout", **settings: Any
) -> dict[str, AttentionEdit]:
    """Every head of every attention layer alone: "layer 3, head 0" -> edit; by default a knockout of audio.

    Args:
        lalm, alpha, rule, settings: those of `layer_configs`.

    Example:
        >>> import mata_interp as mi
        >>> mi.head_configs(mi.LALM.from_pretrained("organism"))["layer 3, head 0"]
        AttentionEdit(1.0, layers=(3,), rule='knockout', heads=(0,))
    """
    configs = {}
    for layer, heads in lalm.structure.heads.items():
        for head in range(heads):
            configs[f"layer {layer}, head {head}"] = AttentionEdit(
                alpha, [layer], rule, heads=[head], **settings
            )
    return configs


def patch_configs(
    lalm: LALM,
    site: str = "residual",
    at: Iterable[int] = (0,),
    negative: str = "silent",
    **settings: Any,
) -> dict[str, ActivationPatch]:
    """Activation patches one by one: "layer 3, token -2" or "layer 3, head 0" -> patch.

    With ``site="residual"``, one for each layer and token, whose map is ``[layer]`` or ``[layer, token]``;
    with ``"head_output"``, one for each layer, head and token, whose map at one token is ``[layer, head]``.

    Args:
        lalm: the model.
        site, negative: those of `ActivationPatch`.
        at: tokens, counted from the last one of the prompt: 0, -1, ...
        settings: other arguments of `ActivationPatch`: clip, seed, phase.

    Example:
        >>> import mata_interp as mi
        >>> from mata_interp.sweeps import patch_configs
        >>> configs = patch_configs(mi.LALM.from_pretrained("organism"), at=[0, -1])
        >>> list(configs)[:2]
        ['layer 0, token 0', 'layer 0, token -1']
    """
    tokens = tuple(at)
    queries = "last" if tokens == (0,) else "text"
    configs = {}
    for layer, heads in lalm.structure.heads.items():
        for token in tokens:
            name = f"layer {layer}, token {token}" if len(tokens) > 1 else f"layer {layer}"
            settings |= {"site": site, "at": (token,), "negative": negative, "queries": queries}
            if site == "residual":
                configs[name] = ActivationPatch((layer,), **settings)
                continue
            for head in range(heads):
                configs[f"{name}, head {head}"] = ActivationPatch((layer,), heads=((head,),), **settings)
    return configs


def causal_map(
    lalm: LALM, items: Item | Sequence[Item], configurations: Mapping[str, Any], **options: Any
) -> xr.DataArray:
    """`sweep` these configurations and the model as it is, and map the `change` that they make.

    Args:
        lalm: the model.
        items: one or several items with known answers.
        configurations: from `window_configs`, `layer_configs` or `head_configs`; or name -> method, all of
            one class: a method in each layer is a map of layers, one with several strengths a map of both.
        options: ``batch_size``, ``block``, ``strict`` and ``progress`` of `sweep`.

    Raises:
        InterventionError: the configurations do not lie on a map (see `change`).

    Example:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening").sample(2)
        >>> mi.causal_map(lalm, items, mi.layer_configs(lalm), progress=False).dims
        ('layer',)
    """
    from .run_sweep import sweep  # needs transformers, and reading a map does not

    _places(configurations)  # before the work starts
    swept = sweep(lalm, items, {NOTHING: None, **configurations}, **options)
    return change(swept, configurations, NOTHING)


def change(swept: xr.DataArray, configurations: Mapping[str, Any], baseline: str) -> xr.DataArray:
    """Mean change of the margin over items, nats, as a map.

    A configuration has a place on a map only where its settings determine it:

    - ``[layer, head]``: each configuration has one layer and one head, and all have the same alpha; NaN for
      heads that a layer does not have.
    - ``[layer]``: each has one layer, all have the same heads and the same alpha.
    - ``[layer, token]``: patches of one layer at one token each.
    - ``[layers, alpha]``: all have the same heads. Of methods that are no attention edits, alpha is the one
      number in which they differ; the attribute ``strength`` names it.

    Args:
        swept: a sweep of ``baseline`` (no intervention) and ``configurations``.
        configurations: by name; all of the same rule, keys, queries and phase.
        baseline: the name of the configuration that the others are compared with.

    Returns:
        The map. ``low`` and ``high``, the 95 % interval over clips of each place by itself, are
        coordinates, as are ``first`` and ``last`` of a window. Among its attributes are ``noise_floor``, nats
        (`mata_interp.statistics.noise_floor`: where no edit has an effect, all places lie below it in 95 % of
        maps), ``items`` and ``clips`` (those with a known answer, of which the map is the mean), rule, group
        (of keys), queries, phase, and heads and alpha where all configurations share them, and those of the
        sweep.

    Raises:
        InterventionError: the configurations have no places of their own on one map.
        ArgumentError: no item has a known answer.
    """
    dims, places = _places(configurations)
    margins = margin(swept)
    moved = margins.sel(configuration=list(configurations)) - margins.sel(configuration=baseline, drop=True)
    with_answer = moved.isel(item=(swept["answer"] >= 0).values)
    if not with_answer.sizes["item"]:
        raise ArgumentError("No item has a known answer, so there is no margin to map.")
    clusters = with_answer["cluster"].values
    axes = [list(dict.fromkeys(place[axis] for place in places)) for axis in range(len(dims))]
    planes = np.full((3, *map(len, axes)), np.nan)
    for place, values in zip(
        places, np.stack(clustered_interval(with_answer.values, clusters), 1), strict=True
    ):
        index = tuple(axis.index(value) for axis, value in zip(axes, place, strict=True))
        planes[(slice(None), *index)] = values
    coords: dict[Any, Any] = dict(zip(dims, axes, strict=True))
    coords |= {"low": (dims, planes[1]), "high": (dims, planes[2])}
    if dims[0] == "layers":
        windows = {brief(edit.layers): edit.layers for edit in configurations.values()}
        coords["first"] = ("layers", [windows[name][0] for name in axes[0]])
        coords["last"] = ("layers", [windows[name][-1] for name in axes[0]])
    counts = {"items": with_answer.sizes["item"], "clips": len(set(map(str, clusters)))}
    counts |= {"noise_floor": noise_floor(with_answer.values, clusters)}
    attrs = {**swept.attrs, **counts, **_shared_settings(list(configurations.values()))}
    return xr.DataArray(planes[0], coords, dims, "change of margin", attrs)


def _places(configurations: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple]]:
    """The dimensions of a map of these configurations, and the place of each."""
    if not configurations:
        raise InterventionError("There are no configurations to map.")
    edits = list(configurations.values())
    _refuse_mixtures(edits)
    one_layer = all(len(edit.layers) == 1 for edit in edits)
    strengths = _strengths(edits)
    one_strength = len(set(strengths)) == 1
    heads = [_heads_of(edit, edit.layers[0]) if one_layer else _all_heads(edit) for edit in edits]
    one_head = one_layer and all(some is not None and len(some) == 1 for some in heads)
    same_heads = len(set(heads)) == 1
    if one_head and one_strength:
        dims: tuple[str, ...] = ("layer", "head")
        places = [(edit.layers[0], *some) for edit, some in zip(edits, heads, strict=True) if some]
    elif one_layer and same_heads and len({getattr(edit, "at", None) for edit in edits}) > 1:
        dims = ("layer", "token")
        places = [(edit.layers[0], edit.at[0] if len(edit.at) == 1 else edit.at) for edit in edits]
    elif one_layer and one_strength and same_heads:
        dims, places = ("layer",), [edit.layers for edit in edits]
    elif same_heads:
        dims = ("layers", "alpha")
        places = [(brief(edit.layers), alpha) for edit, alpha in zip(edits, strengths, strict=True)]
    else:
        raise InterventionError(
            "The configurations differ in heads and are not one head of one layer each at one alpha: they "
            "have no places on one map. Use head_configs, or the same heads in all."
        )
    if len(set(places)) < len(places):
        raise InterventionError("Two configurations have the same place on the map: map them one by one.")
    return dims, places


def _refuse_mixtures(edits: Sequence[Any]) -> None:
    """Refuse configurations that differ in more than layers, heads and strength."""
    for edit in edits:
        if not hasattr(edit, "layers") or not (edit.layers or isinstance(edit, AttentionEdit)):
            raise InterventionError(f"{edit!r}: a map has one intervention with layers at each place.")
    if len({type(edit) for edit in edits}) > 1:
        raise InterventionError("The configurations are of several methods: map them one by one.")
    for setting in SHARED:
        values = {str(getattr(edit, setting, "")) for edit in edits}
        if len(values) > 1:
            raise InterventionError(
                f"The configurations differ in {setting} ({', '.join(sorted(values))}): map them one by one."
            )


def _heads_of(edit: Any, layer: int) -> tuple[int, ...] | None:
    """The heads that a method names for a layer; None for all of them."""
    if isinstance(edit, AttentionEdit):
        return edit.heads_of(layer)
    heads = getattr(edit, "heads", None)
    return heads[edit.layers.index(layer)] if isinstance(heads, tuple) and heads else None


def _all_heads(edit: Any) -> Any:
    return edit.heads if isinstance(edit, AttentionEdit) else getattr(edit, "heads", "all")


def _varying(edits: Sequence[Any]) -> str | None:
    """The field, layers, heads and tokens aside, in which methods that are no attention edits differ.

    Raises:
        InterventionError: they differ in several, or in one that is no number.
    """
    if isinstance(edits[0], AttentionEdit) or not is_dataclass(edits[0]):
        return None
    names = [field.name for field in fields(edits[0]) if field.name not in ("layers", "heads", "at")]
    names = [name for name in names if len({getattr(edit, name) for edit in edits}) > 1]
    numbers = all(isinstance(getattr(edit, name), int | float) for edit in edits for name in names)
    if len(names) > 1 or not numbers:
        raise InterventionError(f"The configurations differ in {', '.join(names)}: map them one by one.")
    return names[0] if names else None


def _strengths(edits: Sequence[Any]) -> list[float]:
    """The strength of each: alpha of attention edits, of other methods the number in which they differ."""
    name = _varying(edits)
    if name is not None:
        return [float(getattr(edit, name)) for edit in edits]
    return [float(getattr(edit, "alpha", 1.0)) for edit in edits]


def _shared_settings(edits: Sequence[Any]) -> dict[str, Any]:
    """The settings that all configurations have in common."""
    # the group of keys is not called "keys": an array with keys is a dict to xarray
    names = {"rule": "rule", "group": "keys", "queries": "queries", "phase": "phase", "alpha": "alpha"}
    shared: dict[str, Any] = {}
    for name, setting in names.items():
        values = {getattr(edit, setting) for edit in edits if hasattr(edit, setting)}
        if len(values) == 1:
            shared[name] = values.pop()
    if not isinstance(edits[0], AttentionEdit):
        shared["method"] = type(edits[0]).__name__
        if (name := _varying(edits)) is not None:
            shared["strength"] = name
    heads = {_heads_of(edit, layer) for edit in edits for layer in edit.layers}
    if len(heads) == 1:
        only = heads.pop()
        shared["heads"] = "all" if only is None else brief(only)
    return shared
