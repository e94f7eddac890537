"""Is MATA better than the methods that compete with it? Every method tuned and tested in the same way.

1. Selection split: every method is swept over 12 configurations (three sets of layers by four strengths, or
what replaces them) on items whose caption contradicts the audio, and keeps the one with the largest mean
log-probability difference. Sinks, specialist heads and attributed heads are found on this split, too.

2. Confirmation split, other clips: every tuned method on the same items, with its own and with another clip's
audio. The change of accuracy has an interval over clips, and its p-value is Holm-adjusted over the methods;
the table also has the dose, the cost in tokens that the decoder reads, and whether accuracy on other items
stays within 5 points.

3. Three contests, each between two tuned methods, Holm-adjusted: scaling against boosting, keywords and last
token against last token, one layer against a window. And dose-targeted MATA against MATA under each rule, and
against its sham on text.

A run is resumable: the same command continues it. With --items 60 --tune 24, about half an hour
for each model on two cores.

\b
Examples
  python analyses/rivals.py --items 60 --tune 24 --models organism
  python analyses/rivals.py --methods "MATA abs,scaling,AAD" --json
  python analyses/rivals.py --models organism,organism-unbiased --assembled runs/assembled
"""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import typer
from support.method_costs import relative_cost
from support.method_effects import BASELINE, OTHER, WITH_OTHER, bounded, comparison, table
from support.method_grids import BUDGET, grid_inputs, grids
from support.method_page import draw, write_page

import mata_interp as mi
from mata_interp.errors import ExclusionWarning
from mata_interp.execution.files import plain
from mata_interp.experiments.planned_comparisons import primary_subset
from mata_interp.interventions import from_dict, to_dict

mpl.use("Agg")

PROFILE_ITEMS = 48  # for attributed heads
BATCH = 24  # items that are tuned on at once: what a method reads beforehand is read once for them
SHAM = "target share, sham on text"
MATCHED = "target share, rows of the sham"
CONTESTS = (
    ("MATA abs", "scaling"),
    ("scaling", "scaling, keywords and last"),
    ("MATA abs", "MATA, one layer"),
)
"""Before and after: the contest asks whether the second is better."""

TARGETED = (("MATA abs", "target share"), ("MATA mul", "target share"), ("MATA add", "target share"))


def main(
    models: Annotated[
        str, typer.Option(help="Names, folders or hub ids, separated by commas.")
    ] = "organism,organism-unbiased",
    benchmark: Annotated[str, typer.Option(help="Name or file of a benchmark.")] = "listening",
    assembled: Annotated[
        Path | None, typer.Option(help="Folder of the assembled model, which has its own benchmark.")
    ] = None,
    items: Annotated[
        int, typer.Option(help="Largest number of items of each caption condition to test on.", min=6)
    ] = 240,
    tune: Annotated[
        int | None, typer.Option(help="Largest number of items to tune on. Default: as many.", min=6)
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Names of methods, separated by commas.")] = None,
    out: Annotated[Path, typer.Option(help="Folder: a run folder per model, table, figure, page.")] = Path(
        "runs/rivals"
    ),
    seed: Annotated[int, typer.Option(help="Random seed of samples, other audio and bootstraps.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Tune, test, compare, draw."""
    warnings.simplefilter("ignore", ExclusionWarning)
    names = None if methods is None else [name.strip() for name in _split(methods)]
    models_and_data = [(name, benchmark) for name in models.split(",") if name]
    if assembled is not None:
        models_and_data.append((str(assembled), str(assembled / "benchmark" / "assembled.json")))
    limits = tune or items, items
    results = [_of_model(model, data, names, limits, out, seed) for model, data in models_and_data]
    result = {"budget": BUDGET, "items": items, "seed": seed, "models": results}
    (out / "rivals.json").write_text(json.dumps(plain(result), indent=1, allow_nan=False) + "\n")
    draw(results, out / "rivals.png")
    write_page(results, out / "rivals.md", out / "rivals.png", shlex.join(sys.argv))
    print(
        json.dumps(plain(result), indent=1, allow_nan=False) if as_json else (out / "rivals.md").read_text()
    )


def _split(text: str) -> list[str]:
    """Names that may contain commas themselves: semicolons separate where there are any."""
    from support.method_grids import GRIDS

    if ";" in text:
        return text.split(";")
    places, rest = [], text
    for name in sorted(GRIDS, key=len, reverse=True):
        if name in rest:
            places.append((text.index(name), name))
            rest = rest.replace(name, "")
    left = [part.strip() for part in rest.split(",") if part.strip()]
    return [name for _, name in sorted(places)] + left


def _of_model(
    model: str, benchmark: str, names: Sequence[str] | None, limits: tuple[int, int], out: Path, seed: int
) -> dict[str, Any]:
    """Everything about one model, in a folder of its own."""
    lalm, data = mi.LALM.from_pretrained(model), mi.load_benchmark(benchmark)
    folder = out / Path(model).name
    folder.mkdir(parents=True, exist_ok=True)
    chosen, tested = (data.split(name, seed=seed) for name in ("selection", "confirmation"))
    conflict = _some(chosen, "conflict", limits[0], seed)
    tuned, tried = _tune(lalm, chosen, conflict, names, folder, seed)
    costs = {name: relative_cost(lalm, conflict[0], method) for name, method in tuned.items()}
    sample = _sample(tested, limits[1], seed)
    run = mi.run(lalm, sample, _conditions(tuned), folder / "run", seed=seed)
    subset = primary_subset(run.records)
    main = run.records
    for column, value in subset.items():
        main = main.loc[main[column] == value]
    rows = table(run.records, tuned, costs, seed)
    contests = _compare(main, CONTESTS, tuned, seed)
    targeted = _compare(main, TARGETED, tuned, seed)
    if "target share" in tuned:
        targeted += _compare(main, ((SHAM, MATCHED),), {SHAM, MATCHED}, seed)
    return {
        "model": lalm.name.rstrip("/").rpartition("/")[2],
        "benchmark": data.name,
        "budget": BUDGET,
        "selection_items": len(conflict),
        "subset": "a caption that contradicts the audio" if subset else "any caption",
        "methods": rows,
        "contests": [*contests, *targeted],
        "shams": _shams(main, seed) if "target share" in tuned else [],
        "tried": tried,
        "sentence": _sentence(rows, targeted),
    }


def _some(items: Any, condition: str, limit: int, seed: int) -> Any:
    """A sample of the items with this caption condition, or of all items if none has it."""
    chosen = items.filter(condition=condition)
    return (chosen if len(chosen) else items).sample(limit, seed=seed)


def _sample(items: Any, limit: int, seed: int) -> list[mi.Item]:
    """As many items of each caption condition, each at most ``limit``."""
    conditions = sorted({item.condition for item in items} - {""}) or [""]
    parts = [items.filter(condition=name) if name else items for name in conditions]
    return [item for part in parts for item in part.sample(limit, seed=seed)]


def _tune(
    lalm: mi.LALM, chosen: Any, conflict: Any, names: Sequence[str] | None, folder: Path, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Method -> its best configuration on the selection split, and what each configuration reached."""
    path = folder / "profile.json"
    if not path.exists():
        look = _some(chosen, "neutral", min(PROFILE_ITEMS, len(conflict)), seed)
        mi.fusion_layers(lalm, look, criteria=["attribution"], seed=seed).save(path)
    made = grids(grid_inputs(lalm, conflict, mi.FusionProfile.load(path)), names)
    configurations = {f"{name} #{n}": one for name, grid in made.items() for n, one in enumerate(grid)}
    conditions = {BASELINE: None, **configurations}
    swept = mi.sweep(lalm, conflict, conditions, batch_size=BATCH, out=folder / "selection.nc")
    reached = bounded(mi.margin(swept)).mean("item")
    tuned, tried = {}, {}
    for name, grid in made.items():
        values = [float(reached.sel(configuration=f"{name} #{n}")) for n in range(len(grid))]
        best = max(range(len(grid)), key=lambda n, values=values: (values[n], -n))
        # as it will be read from the manifest
        tuned[name] = from_dict(to_dict(grid[best]))
        tried[name] = {"best": best, "margins": values}
    return tuned, tried


def _conditions(tuned: Mapping[str, Any]) -> dict[str, Any]:
    """The baseline and every method, each with its own and with another clip's audio; and the sham."""
    conditions: dict[str, Any] = {BASELINE: None, **tuned}
    if "target share" in tuned:
        target = tuned["target share"]
        conditions[MATCHED] = replace(target, matched=True)
        shared = {name: getattr(target, name) for name in ("target_share", "below", "heads", "item_layers")}
        conditions[SHAM] = mi.DoseTargetedSham(target.layers, **shared)
    other = {OTHER: None} | {WITH_OTHER.format(name): method for name, method in tuned.items()}
    return conditions | {name: mi.Condition(method, audio="other") for name, method in other.items()}


def _compare(records: Any, pairs: Sequence[tuple[str, str]], known: Any, seed: int) -> list[dict[str, Any]]:
    """Accuracy of the second of each pair minus that of the first; Holm over the pairs."""
    rows = []
    for before, after in pairs:
        if before in known and after in known:
            effect = comparison(records, before, after, "correct", seed)
            margin = comparison(records, before, after, "margin", seed)
            row = {"before": before, "after": after, "difference": effect.difference, "low": effect.low}
            row |= {"high": effect.high, "p": effect.p, "fixed": effect.fixed, "broken": effect.broken}
            row |= {"margin": margin.difference, "margin_low": margin.low, "margin_high": margin.high}
            rows.append(row)
    for row, p in zip(rows, mi.holm([row["p"] for row in rows]) if rows else (), strict=True):
        row["p_holm"] = float(p)
    return rows


def _shams(records: Any, seed: int) -> list[dict[str, Any]]:
    """Dose-targeted MATA where its sham has a solution, and the sham: dose and effect of each."""
    rows = []
    for name in (MATCHED, SHAM):
        part = records.loc[records["condition"] == name]
        effect = comparison(records, BASELINE, name, "correct", seed)
        row = {"condition": name, "difference": effect.difference, "low": effect.low, "high": effect.high}
        row |= {"dose_kl": float(part["dose_kl"].mean()), "left_alone": float(part["dose_left_alone"].mean())}
        rows.append(row)
    return rows


def _sentence(rows: Sequence[Mapping[str, Any]], targeted: Sequence[Mapping[str, Any]]) -> str:
    """Which method leads, and whether dose-targeted MATA is better than MATA on held-out items."""
    first = rows[0]
    text = (
        f"First by the lower end of its interval: {first['method']}, {100 * first['accuracy']:+.1f} points "
        f"(95 % interval {100 * first['accuracy_low']:+.1f} to {100 * first['accuracy_high']:+.1f})."
    )
    against = [row for row in targeted if row["after"] == "target share"]
    better = [row for row in against if row["low"] > 0 and row["p_holm"] < 0.05]
    for row in against:
        text += (
            f" Dose-targeted MATA minus {row['before']}: {100 * row['difference']:+.1f} points "
            f"({100 * row['low']:+.1f} to {100 * row['high']:+.1f})."
        )
    if against:
        verdict = "is" if len(better) == len(against) else "is not"
        text += (
            f" Dose-targeted MATA {verdict} shown to be better than MATA under each rule on held-out items."
        )
    return text


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
