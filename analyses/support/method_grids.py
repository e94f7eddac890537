"""The settings that each method is tuned over: the same number for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

import mata_interp as mi
from mata_interp.errors import BenchmarkError, InterventionError, unknown_name
from mata_interp.interventions import catalogue as c

__all__ = ["BUDGET", "GRIDS", "GridInputs", "grid_inputs", "grids"]

BUDGET = 12
"""Configurations that each method is tuned over: three sets of layers by four strengths, or what replaces
them."""

Grid = list[Any]


@dataclass(frozen=True)
class GridInputs:
    """Layers, heads and sinks of a model, measured on the selection split, of which settings are made.

    Attributes:
        layer_sets: three sets of layers: those of the MATA paper, the second half, all.
        single: up to six layers, spread over the depth; their number divides `BUDGET`.
        last: the last decoder layer.
        sinks: dimensions and threshold of attention sinks.
        specialists: layers of the heads whose attention to audio goes with being right.
        heads: heads with a positive direct attribution, layer -> heads; {} where there are none.
        text_heads: heads with the largest mass of text, layer -> heads.
    """

    layer_sets: tuple[tuple[int, ...], ...]
    single: tuple[int, ...]
    last: int
    sinks: tuple[tuple[int, ...], float]
    specialists: tuple[int, ...]
    heads: Mapping[int, tuple[int, ...]]
    text_heads: Mapping[int, tuple[int, ...]]


def grid_inputs(lalm: mi.LALM, items: Any, profile: mi.FusionProfile) -> GridInputs:
    """The inputs of the grids, measured on items of the selection split.

    Args:
        lalm: the model.
        items: of the selection split.
        profile: of the selection split, with direct attribution.
    """
    layers = lalm.attention_layers
    trace = mi.trace(lalm, items, progress=False)
    swept = mi.sweep(lalm, items, {"none": None}, progress=False)
    correct = mi.correct(swept).sel(configuration="none").values
    prompt = lalm.prompt(list(items)[:8])
    after_first = [layer for layer in layers if layer > 0]
    sinks = c.SinkRedistribution.for_model(lalm, prompt, after_first)
    try:
        specialists = c.find_specialist_heads(trace, correct, 10)
    except InterventionError:  # all answers are correct, or none
        specialists = ()
    heads: dict[int, list[int]] = {}
    for layer, head in profile.audio_heads[["layer", "head"]].itertuples(index=False):
        heads.setdefault(int(layer), []).append(int(head))
    text = ("question", "options", "caption", "template")
    on_text = trace["mass"].sel(group=list(text)).sum("group").mean("item")
    count = lalm.num_layers
    return GridInputs(
        layer_sets=(
            tuple(mi.published_layers(lalm)),
            tuple(layer for layer in layers if layer >= count // 2),
            tuple(layers),
        ),
        single=_spread(layers),
        last=count - 1,
        sinks=(sinks.dimensions, sinks.threshold),
        specialists=tuple(sorted({layer for layer, _, _ in specialists})) or (layers[-1],),
        heads={layer: tuple(sorted(some)) for layer, some in sorted(heads.items())},
        text_heads=_largest(on_text, 2),
    )


def _spread(layers: Sequence[int]) -> tuple[int, ...]:
    """Up to six layers at equal distances, as many as divide the budget."""
    count = max(n for n in (1, 2, 3, 4, 6) if n <= len(layers))
    return tuple(layers[int(n)] for n in np.linspace(0, len(layers) - 1, count).round())


def _largest(mass: Any, count: int) -> dict[int, tuple[int, ...]]:
    """The heads of each layer with the largest values of [layer, head]."""
    return {
        int(layer): tuple(sorted(np.argsort(-np.nan_to_num(values))[:count].tolist()))
        for layer, values in zip(mass["layer"].values, mass.values, strict=True)
    }


def _each(make: Callable[..., Any], *values: Iterable[Any]) -> Grid:
    return [make(*setting) for setting in product(*values)]


def _in_one(make: Callable[[int, float], Any], inputs: GridInputs, strengths: Sequence[float]) -> Grid:
    """Single layers by as many of the strengths as the budget has room for."""
    room = BUDGET // len(inputs.single)
    many = [strengths[n % len(strengths)] * 2 ** (n // len(strengths)) for n in range(room)]
    return _each(make, inputs.single, many)


def _after_first(sets: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [tuple(layer for layer in layers if layer > 0) for layers in sets]


def _of_heads(heads: Mapping[int, tuple[int, ...]], layers: Sequence[int]) -> dict[str, Any]:
    chosen = [layer for layer in layers if layer in heads]
    return {"layers": tuple(chosen), "heads": tuple(heads[layer] for layer in chosen)}


def _mata(rule: str, alphas: Sequence[float]) -> Callable[[GridInputs], Grid]:
    return lambda f: _each(lambda layers, a: mi.Mata(a, layers, rule), f.layer_sets, alphas)


ALPHAS = (0.1, 1.0, 2.0, 4.0)  # the published strength and stronger ones
FACTORS = (0.5, 2.0, 3.0, 5.0)
SHARES = (0.3, 0.5, 0.7, 0.9)
CONTRASTS = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)

GRIDS: dict[str, Callable[[GridInputs], Grid]] = {
    "MATA abs": _mata("abs", ALPHAS),
    "MATA mul": _mata("mul", ALPHAS),
    "MATA add": _mata("add", (0.1, 2.0, 4.0, 8.0)),
    "MATA, one layer": lambda f: _in_one(lambda n, a: mi.Mata(a, [n]), f, (2.0, 4.0, 1.0, 8.0)),
    "target share": lambda f: _each(mi.DoseTargetedMata, f.layer_sets, SHARES),
    "target share, low heads": lambda f: _each(
        lambda layers, y: mi.DoseTargetedMata(layers, y, below=y), f.layer_sets, SHARES
    ),
    "target share, item's layers": lambda f: _each(
        lambda layers, y: mi.DoseTargetedMata(layers, y, item_layers=max(1, len(layers) // 2)),
        f.layer_sets,
        SHARES,
    ),
    "target share, attributed heads": lambda f: _each(
        lambda layers, y: mi.DoseTargetedMata(target_share=y, **_of_heads(f.heads, layers)),
        f.layer_sets,
        SHARES,
    ),
    "scaling": lambda f: _each(c.Scaling, f.layer_sets, FACTORS),
    "scaling, one layer": lambda f: _in_one(lambda n, w: c.Scaling((n,), w), f, (2.0, 5.0, 0.2, 3.0)),
    "scaling, keywords and last": lambda f: _each(c.KeywordScaling, f.layer_sets, FACTORS),
    "AdaptVis": lambda f: _each(
        lambda layers, t: c.GatedScaling(layers, 1.5, 0.5, t), f.layer_sets, (0.3, 0.4, 0.6, 0.8)
    ),
    "PAI": lambda f: _each(
        lambda layers, setting: c.Pai(layers, *setting),
        f.layer_sets,
        ((0.2, 1.1), (0.5, 1.5), (2.0, 1.5), (2.0, 3.0)),
    ),
    "HGAI": lambda f: _each(c.Hgai, f.layer_sets, (0.5, 1.0, 2.0, 4.0)),
    "IAT": lambda f: _each(c.Iat, f.layer_sets, (0.4, 0.8, 1.6, 3.2)),
    "VAF": lambda f: _each(c.Vaf, f.layer_sets, (1.15, 1.5, 2.0, 4.0)),
    "OWL": lambda f: _each(
        lambda layers, setting: c.Owl(layers, *setting),
        f.layer_sets,
        ((0.1, 0.1, 1.0), (0.2, 0.2, 2.0), (0.5, 0.2, 1.0), (0.5, 0.5, 2.0)),
    ),
    "OWL, adaptive": lambda f: _each(
        lambda layers, y: c.Owl(layers, ratio=y), f.layer_sets, (0.25, 0.5, 1.0, 2.0)
    ),
    "PAINT": lambda f: _each(
        lambda layers, setting: c.Paint(layers, *setting),
        f.layer_sets,
        ((0.35, 0.15), (0.7, 0.3), (1.4, 0.6), (2.8, 1.2)),
    ),
    "CAAC": lambda f: _each(
        lambda layers, setting: c.Caac(layers, *setting),
        f.layer_sets,
        ((0.5, 0.25), (0.5, 0.6), (1.5, 0.6), (1.5, 1.0)),
    ),
    "PASTA": lambda f: _each(
        lambda layers, a: c.Pasta(**_of_heads(f.heads or f.text_heads, layers), scale=a),
        f.layer_sets,
        (0.01, 0.1, 0.3, 0.5),
    ),
    "InstABoost": lambda f: _each(c.InstABoost, f.layer_sets, (3.0, 6.0, 12.0, 50.0)),
    "SpotLight": lambda f: _each(c.SpotLight, f.layer_sets, SHARES),
    "VAR": lambda f: _each(
        lambda layers, keep: c.SinkRedistribution(
            layers, f.sinks[0], keep, least_mass=0.05, threshold=f.sinks[1]
        ),
        _after_first(f.layer_sets),
        (0.0, 0.3, 0.6, 0.8),
    ),
    "AD-HH": lambda f: _each(
        lambda layers, t: c.AdHh(**_of_heads(f.text_heads, layers), threshold=t),
        f.layer_sets,
        (0.2, 0.4, 0.6, 0.8),
    ),
    "value scaling": lambda f: _each(c.ValueScaling, f.layer_sets, (1.25, 1.5, 2.0, 3.0)),
    "steering": lambda f: _each(c.Steering, f.layer_sets, (0.01, 0.1, 0.17, 0.5)),
    "audio specialists": lambda f: _each(
        lambda b, negative: c.AudioSpecialists((f.last,), f.specialists, b, negative),
        (0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
        ("silent", "omitted"),
    ),
    "AAD": lambda f: _each(c.Aad, CONTRASTS, ("omitted", "silent")),
    "ACD": lambda f: _each(
        lambda a, negative: c.Acd(a, negative=negative),
        CONTRASTS,
        ("noised", "reversed"),
    ),
    "AMTI": lambda f: _each(c.Amti, (1.5, 2.0, 4.0, 8.0), (0.25, 0.5, 1.0)),
    "AVCD": lambda f: _each(c.Avcd, f.layer_sets, (0.5, 1.0, 2.0, 4.0)),
    "DoLa": lambda f: _each(
        lambda layers, strength: c.Dola(layers[:-1] or layers, strength),
        f.layer_sets,
        (0.1, 0.25, 0.5, 1.0),
    ),
}
"""Name -> its configurations. SEKA (trained projections), AHAMask (trained masks) and TAD (questions of yes
and no) need what these splits do not give; knockout and sham attentions are controls."""


def grids(inputs: GridInputs, names: Sequence[str] | None = None) -> dict[str, Grid]:
    """Method -> its configurations, as many for each.

    Args:
        inputs: of the model, from `grid_inputs`.
        names: of the methods; None: all.

    Raises:
        BenchmarkError: there is no such method.
    """
    selection = list(GRIDS) if names is None else list(names)
    for name in selection:
        if name not in GRIDS:
            raise BenchmarkError(unknown_name("method", name, GRIDS))
    made = {name: GRIDS[name](inputs) for name in selection}
    if not inputs.heads:
        made.pop("target share, attributed heads", None)
    for name, grid in made.items():
        if len(grid) != BUDGET:
            raise BenchmarkError(f"{name} has {len(grid)} configurations instead of {BUDGET}.")
    return made
