"""Does the recommended window help? MATA in it, compared with MATA in every other window of equal width.

1. Selection split: `mi.fusion_layers` recommends a window from items without a caption. Every window is swept
over items whose caption contradicts the audio, with the strengths that the study tries, and keeps the
strength with the largest mean log-probability difference, as the study does; each window has its own, so
that none is favoured.

2. Confirmation split, other clips: MATA in every window at its strength. The change of the log-probability
difference and of accuracy, on conflict items and on neutral items; then the *rank* of the recommended
window with its interval: rank 1 if no other window has a larger effect.

Windows of equal width are all runs of as many neighbouring layers and, for a window with gaps, its shape
moved to every other place. All other sets of as many layers follow if they are few enough. Windows of single
criteria are ranked in the same way, each among those of its own width. One comparison is tested: on conflict
items, the log-probability difference in the recommended window against each other of equal width,
Holm-adjusted. All else is exploratory, each interval by itself. About ten minutes on a CPU.

\b
Examples
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
import pandas as pd
import typer
from support.layer_selection_figure import draw
from support.ranking import compared, ranked

import mata_interp as mi
from mata_interp.errors import BenchmarkError
from mata_interp.experiments.choosing import GRID_ITEMS
from mata_interp.interventions import DEFAULT_ALPHAS
from mata_interp.ranges import layer_range

mpl.use("Agg")

Window = tuple[int, ...]
CAPTIONS = ("conflict", "neutral")
RECOMMENDED = "window"
BASELINE = "baseline"
KINDS: dict[str, Any] = {"margin": "margin", "accuracy": "binary"}  # measure -> kind of paired effect


def main(
    model: Annotated[str, typer.Option(help="Name, folder or hub id of the model.")] = "organism",
    benchmark: Annotated[str, typer.Option(help="Name or file of a benchmark.")] = "listening",
    items: Annotated[
        int, typer.Option(help="Largest number of items for each caption, from the confirmation split.")
    ] = 400,
    look: Annotated[int, typer.Option(help="Largest number of items for the criteria.")] = 96,
    layers: Annotated[
        Path | None, typer.Option(help="Profile from `mata-interp layers`, instead of a new one.")
    ] = None,
    grid_items: Annotated[
        int, typer.Option(help="Largest number of items to choose strengths on.")
    ] = GRID_ITEMS,
    rule: Annotated[str, typer.Option(help="Rule of the edit: abs, mul or add.")] = "abs",
    queries: Annotated[
        str, typer.Option(help="Queries whose scores are edited: last (MATA) or text.")
    ] = "last",
    sets: Annotated[
        int, typer.Option(help="Include all sets of as many layers, if there are at most this many.")
    ] = 100,
    out: Annotated[Path, typer.Option(help="Folder of the tables and the figure.")] = Path(
        "runs/layer-selection"
    ),
    seed: Annotated[int, typer.Option(help="Random seed of the samples and the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
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
        f"{layer_range(w)} @ {alpha:g}": mi.Mata(alpha, w, **settings)
        for w in windows
        for alpha in DEFAULT_ALPHAS
    }
    alphas = best_alphas(mi.sweep(lalm, _some(selection, "conflict", grid_items, seed), tried), tried)
    edits = {layer_range(w): mi.Mata(alphas[w], w, chosen_on=profile.chosen_on, **settings) for w in windows}
    effects, ranks = [], []
    for caption in CAPTIONS:
        tested = _some(confirmation, caption, items, seed)
        if shared := {item.cluster for item in tested} & {*profile.chosen_on}:
            raise BenchmarkError(f"{len(shared)} clips are in both splits, {min(shared)!r} among them.")
        measured = measure(mi.sweep(lalm, tested, {BASELINE: None, **edits}), list(edits))
        about = {"caption": caption, "clips": len(set(measured["clusters"]))}
        effects += [{**about, **row} for row in changes(measured, windows, alphas, seed)]
        ranks += [{**about, **row} for row in places(measured, windows, named, families, seed)]
    result = {
        "model": lalm.name,
        "window": list(profile.window),
        "sentence": profile.summary,
        **settings,
        "alphas": list(DEFAULT_ALPHAS),
        "effects": effects,
        "ranks": ranks,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "layer_selection.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, out / "layer_selection.png")
    print(json.dumps(result, indent=1) if as_json else report(result, out))


def _some(items: Any, condition: str, limit: int, seed: int) -> Any:
    """A sample of the items with this caption condition, or of all items if none has it."""
    chosen = items.filter(condition=condition)
    return (chosen if len(chosen) else items).sample(limit, seed=seed)


def equal(window: Window, layers: Sequence[int]) -> list[Window]:
    """The window, then all others of equal width: runs of neighbouring layers, and its shape moved."""
    at, n = [layers.index(layer) for layer in window], len(layers)
    shapes = [list(range(len(at))), [place - at[0] for place in at]]
    moved = [
        tuple(layers[first + step] for step in shape) for shape in shapes for first in range(n - shape[-1])
    ]
    return list(dict.fromkeys([window, *moved]))


def all_sets(window: Window, layers: Sequence[int], most: int) -> list[Window]:
    """The window, then all other sets of as many layers; empty if there are more than ``most``."""
    if comb(len(layers), len(window)) > most:
        return []
    return list(dict.fromkeys([window, *combinations(layers, len(window))]))


def best_alphas(swept: Any, tried: Mapping[str, mi.AttentionEdit]) -> dict[Window, float]:
    """Window -> strength with the largest mean log-probability difference; of equal ones, the smallest."""
    margins = mi.margin(swept).mean("item")
    best: dict[Window, tuple[float, float]] = {}
    for name, mata in tried.items():
        score = (float(margins.sel(configuration=name)), -mata.alpha)
        best[mata.layers] = max(best.get(mata.layers, score), score)
    return {window: -alpha for window, (_, alpha) in best.items()}


def measure(swept: Any, names: list[str]) -> dict[str, Any]:
    """Log-probability difference (nats) and correctness: baseline ``[item]``, windows ``[item, window]``."""
    margins = mi.margin(swept)
    right = mi.correct(swept).astype(float)
    measured: dict[str, Any] = {"clusters": list(map(str, swept["cluster"].values))}
    for measure, values in (("margin", margins), ("accuracy", right)):
        values = values.transpose("item", "configuration")
        measured[measure] = values.sel(configuration=BASELINE).values, values.sel(configuration=names).values
    return measured


def changes(
    measured: Mapping[str, Any], windows: list[Window], alphas: Mapping[Window, float], seed: int
) -> list[dict[str, Any]]:
    """The change by MATA in each window against the baseline, with its interval."""
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
    """Rank of each named window among those of equal width; all differences of the recommended one."""
    rows = []
    for name, family in families.items():
        window = named.get(name, named[RECOMMENDED] if name == "sets" else ())
        columns = [windows.index(w) for w in family]
        if len(columns) < 2:  # as wide as the model: no other window
            continue
        for measure, kind in KINDS.items():
            values = measured[measure][1][:, columns]
            row = {"name": name, "layers": list(window), "measure": measure}
            row |= ranked(values, 0, measured["clusters"], seed)  # the window itself comes first
            if name in (RECOMMENDED, "sets"):
                comparison = compared(values, 0, measured["clusters"], kind, seed)
                effect = comparison["against_mean"]
                row |= {"set_low": comparison["set_low"], "set_high": comparison["set_high"]}
                row |= {
                    "over_others": effect.difference,
                    "low": effect.low,
                    "high": effect.high,
                    "p": effect.p,
                }
                row["pairs"] = [
                    {"layers": list(family[other]), **pair} for other, pair in comparison["pairs"].items()
                ]
            rows.append(row)
    return rows


def report(result: Mapping[str, Any], out: Path) -> str:
    """The result as text."""
    ranks = pd.DataFrame(result["ranks"]).drop(columns=["pairs"], errors="ignore")
    if not any(row["name"] == RECOMMENDED for row in result["ranks"]):
        return f"{result['sentence']}\nThere is no recommended window to compare with others."
    window_rows = [row for row in result["ranks"] if row["name"] == RECOMMENDED]
    primary = next(row for row in window_rows if row["measure"] == "margin" and row["caption"] == CAPTIONS[0])
    pairs = pd.DataFrame(primary["pairs"])
    pairs["layers"] = [layer_range(layers) for layers in pairs["layers"]]
    ranks["layers"] = [layer_range(layers) for layers in ranks["layers"]]
    return "\n\n".join([
        result["sentence"],
        f"MATA ({result['rule']}, {result['queries']} queries) in the recommended window, conflict items, by "
        f"log-probability difference: rank {primary['rank']:g} of {primary['of']} windows of equal width "
        f"(95 % bootstrap interval over {primary['clips']} clips {primary['rank_low']:g} to "
        f"{primary['rank_high']:g}; "
        f"confidence set {primary['set_low']} to {primary['set_high']}); difference from the others' mean "
        f"{primary['over_others']:+.3f} nats ({primary['low']:+.3f} to {primary['high']:+.3f}).",
        "Difference from each of them, the one comparison that is tested (p_holm):",
        pairs[["layers", "difference", "low", "high", "p_holm"]].to_string(
            index=False, float_format="%.3f"
        ),
        "Exploratory: all ranks (1 is best).",
        ranks.to_string(index=False, float_format="%.3f"),
        f"Table and figure: {out / 'layer_selection.json'}, {out / 'layer_selection.png'}",
    ])  # fmt: skip


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
