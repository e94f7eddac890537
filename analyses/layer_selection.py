"""Does the recommended window help? MATA in it against MATA in every other window of equal width.

1. Selection split. `mi.fusion_layers` looks at items without a caption and recommends a window. Every window
   is swept over items whose caption contradicts the sound, under the strengths that the study tries, and
   keeps the one with the best mean margin, as the study chooses; each its own, so that none is favoured.
2. Confirmation split, other clips. MATA in every window, each under its strength: what it changes of the
   margin and of right answers, on conflict items and on neutral ones. Then the recommended window's *rank*,
   with its interval: 1 if none of the others does more.

Windows of equal width are all runs of as many neighbouring layers; of a window with gaps, also its shape
moved to every other place. Where they are few enough, all other sets of as many layers follow. Windows that
single criteria name are ranked likewise, each among those of its own width.

One thing is tested: on conflict items, the margin in the recommended window against each other of equal
width, Holm-corrected. All else is exploratory, each interval by itself.

    python analyses/layer_selection.py
    python analyses/layer_selection.py --queries text --sets 0 --grid-items 24 --items 100 --json
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import typer
from support.layer_selection_figure import draw
from support.ranking import compared, ranked

import mata_interp as mi
from mata_interp.experiments.choosing import ALPHAS, GRID_ITEMS
from mata_interp.ranges import layer_range

mpl.use("Agg")

Window = tuple[int, ...]
CAPTIONS = ("conflict", "neutral")
RECOMMENDED = "window"
NOTHING = "nothing"
KINDS: dict[str, Any] = {"margin": "margin", "accuracy": "binary"}  # of paired effects


def main(
    model: Annotated[str, typer.Option(help="A model's name, folder or hub id.")] = "organism",
    benchmark: Annotated[str, typer.Option(help="A benchmark's name or file.")] = "listening",
    items: Annotated[int, typer.Option(help="Items of the confirmation split, of each caption.")] = 400,
    look: Annotated[int, typer.Option(help="Items that the criteria look at.")] = 96,
    layers: Annotated[Path | None, typer.Option(help="Instead: a profile of `mata-interp layers`.")] = None,
    grid_items: Annotated[int, typer.Option(help="Items that strengths are chosen on.")] = GRID_ITEMS,
    rule: Annotated[str, typer.Option(help="abs, mul or add.")] = "abs",
    queries: Annotated[str, typer.Option(help="Whose scores: last (MATA) or text.")] = "last",
    sets: Annotated[
        int, typer.Option(help="All sets of as many layers, if they are no more than this.")
    ] = 100,
    out: Annotated[Path, typer.Option(help="Folder of tables and figure.")] = Path("runs/layer-selection"),
    seed: Annotated[int, typer.Option(help="Of item choice and resampling.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print all as JSON.")] = False,
) -> None:
    """Choose on one split, measure on the other, rank, draw."""
    lalm, data = mi.LALM.from_pretrained(model), mi.load_benchmark(benchmark)
    selection, confirmation = (data.split(name, seed=seed) for name in ("selection", "confirmation"))
    profile = (
        mi.FusionProfile.load(layers)
        if layers
        else mi.fusion_layers(lalm, _some(selection, "neutral", look, seed), seed=seed)
    )
    named = {name: w for name, w in {RECOMMENDED: profile.window, **profile.windows}.items() if w}
    families = {name: equal(window, lalm.attention_layers) for name, window in named.items()}
    if RECOMMENDED in named:
        families["sets"] = all_sets(named[RECOMMENDED], lalm.attention_layers, sets)
    windows = list(dict.fromkeys(w for family in families.values() for w in family))

    settings = {"rule": rule, "queries": queries}
    tried = {
        f"{layer_range(w)} @ {alpha:g}": mi.Mata(alpha, w, **settings) for w in windows for alpha in ALPHAS
    }
    alphas = best_alphas(mi.sweep(lalm, _some(selection, "conflict", grid_items, seed), tried), tried)
    edits = {layer_range(w): mi.Mata(alphas[w], w, chosen_on=profile.chosen_on, **settings) for w in windows}
    effects, ranks = [], []
    for caption in CAPTIONS:
        asked = _some(confirmation, caption, items, seed)
        if seen := {item.cluster for item in asked} & {*profile.chosen_on}:
            raise ValueError(f"{len(seen)} clips are in both splits, {min(seen)} among them.")
        measured = measure(mi.sweep(lalm, asked, {NOTHING: None, **edits}), list(edits))
        about = {"caption": caption, "clips": len(set(measured["clusters"]))}
        effects += [{**about, **row} for row in changes(measured, windows, alphas, seed)]
        ranks += [{**about, **row} for row in places(measured, windows, named, families, seed)]
    found = {
        "model": lalm.name,
        "window": list(profile.window),
        "sentence": profile.summary,
        **settings,
        "alphas": list(ALPHAS),
        "effects": effects,
        "ranks": ranks,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "layer_selection.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, out / "layer_selection.png")
    print(json.dumps(found, indent=1) if as_json else told(found, out))


def _some(items: Any, condition: str, limit: int, seed: int) -> Any:
    """Items under one caption condition, or any where there are none."""
    chosen = items.filter(condition=condition)
    return (chosen if len(chosen) else items).sample(limit, seed=seed)


def equal(window: Window, layers: Sequence[int]) -> list[Window]:
    """The window, then all others of equal width: runs of neighbours, and its own shape moved."""
    at, n = [layers.index(layer) for layer in window], len(layers)
    shapes = [list(range(len(at))), [place - at[0] for place in at]]
    moved = [
        tuple(layers[first + step] for step in shape) for shape in shapes for first in range(n - shape[-1])
    ]
    return list(dict.fromkeys([window, *moved]))


def all_sets(window: Window, layers: Sequence[int], most: int) -> list[Window]:
    """The window, then all other sets of as many layers; none where they are more than ``most``."""
    if comb(len(layers), len(window)) > most:
        return []
    return list(dict.fromkeys([window, *combinations(layers, len(window))]))


def best_alphas(swept: Any, tried: Mapping[str, mi.Mata]) -> dict[Window, float]:
    """Of each window, the strength with the best mean margin; of equals, the gentlest."""
    margins = mi.sweeps.margin(swept).mean("item")
    best: dict[Window, tuple[float, float]] = {}
    for name, mata in tried.items():
        told = (float(margins.sel(configuration=name)), -mata.alpha)
        best[mata.layers] = max(best.get(mata.layers, told), told)
    return {window: -alpha for window, (_, alpha) in best.items()}


def measure(swept: Any, names: list[str]) -> dict[str, Any]:
    """Margins, nats, and right answers of the baseline [item] and of each window [item, window]."""
    margins = mi.sweeps.margin(swept)
    right = (swept.fillna(-np.inf).argmax("choice") == swept["answer"]).astype(float)
    found: dict[str, Any] = {"clusters": list(map(str, swept["cluster"].values))}
    for measure, values in (("margin", margins), ("accuracy", right)):
        values = values.transpose("item", "configuration")
        found[measure] = values.sel(configuration=NOTHING).values, values.sel(configuration=names).values
    return found


def changes(
    measured: Mapping[str, Any], windows: list[Window], alphas: Mapping[Window, float], seed: int
) -> list[dict[str, Any]]:
    """What MATA in each window changes, against none, with its interval."""
    rows = []
    for column, window in enumerate(windows):
        row: dict[str, Any] = {"layers": list(window), "alpha": alphas[window]}
        for measure, kind in KINDS.items():
            before, after = measured[measure]
            effect = mi.paired_effect(
                before, after[:, column], kind, clusters=measured["clusters"], seed=seed
            )
            row |= {measure: effect.difference, f"{measure}_low": effect.low, f"{measure}_high": effect.high}
        rows.append({**row, "fixed": effect.fixed, "broken": effect.broken})
    return rows


def places(
    measured: Mapping[str, Any],
    windows: list[Window],
    named: Mapping[str, Window],
    families: Mapping[str, list[Window]],
    seed: int,
) -> list[dict[str, Any]]:
    """The rank of each named window among those of equal width; of the recommended one, all differences."""
    rows = []
    for name, family in families.items():
        window = named.get(name, named[RECOMMENDED] if name == "sets" else ())
        columns = [windows.index(w) for w in family]
        if len(columns) < 2:  # as wide as the model: nothing to compare it with
            continue
        for measure, kind in KINDS.items():
            values = measured[measure][1][:, columns]
            row = {"name": name, "layers": list(window), "measure": measure}
            row |= ranked(values, 0, measured["clusters"], seed)  # the family's first is the window itself
            if name in (RECOMMENDED, "sets"):
                told = compared(values, 0, measured["clusters"], kind, seed)
                effect = told["against_mean"]
                row |= {"set_low": told["set_low"], "set_high": told["set_high"]}
                row |= {
                    "over_others": effect.difference,
                    "low": effect.low,
                    "high": effect.high,
                    "p": effect.p,
                }
                row["pairs"] = [
                    {"layers": list(family[other]), **pair} for other, pair in told["pairs"].items()
                ]
            rows.append(row)
    return rows


def told(found: Mapping[str, Any], out: Path) -> str:
    """For people."""
    ranks = pd.DataFrame(found["ranks"]).drop(columns=["pairs"], errors="ignore")
    if not any(row["name"] == RECOMMENDED for row in found["ranks"]):
        return f"{found['sentence']}\nSo no window is recommended that others could be compared with."
    own = [row for row in found["ranks"] if row["name"] == RECOMMENDED]
    primary = next(row for row in own if row["measure"] == "margin" and row["caption"] == CAPTIONS[0])
    pairs = pd.DataFrame(primary["pairs"])
    pairs["layers"] = [layer_range(layers) for layers in pairs["layers"]]
    ranks["layers"] = [layer_range(layers) for layers in ranks["layers"]]
    return "\n\n".join([
        found["sentence"],
        f"MATA ({found['rule']}, {found['queries']} queries) in the recommended window on conflict items, by "
        f"margin: rank {primary['rank']:g} of {primary['of']} windows of equal width (95 % interval by "
        f"bootstrap over {primary['clips']} clips {primary['rank_low']:g} to {primary['rank_high']:g}; "
        f"confidence set {primary['set_low']} to {primary['set_high']}); over the others' mean "
        f"{primary['over_others']:+.3f} nats ({primary['low']:+.3f} to {primary['high']:+.3f}).",
        "Against each of them, the one thing tested (p_holm):",
        pairs[["layers", "difference", "low", "high", "p_holm"]].to_string(
            index=False, float_format="%.3f"
        ),
        "Exploratory: all ranks, 1 is best.",
        ranks.to_string(index=False, float_format="%.3f"),
        f"Table and figure: {out / 'layer_selection.json'}, {out / 'layer_selection.png'}",
    ])  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
