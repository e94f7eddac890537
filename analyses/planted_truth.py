"""Do the criteria find fusion layers that are known? Every criterion on every planted model.

A planted model is an organism that was trained to read audio in chosen layers only (see
mata_interp.organism.planted_model): either all other layers attend over a window too short to reach the
audio, or attention to audio is penalised there. The truth is verified independently: audio is hidden from all
text in one layer after the other, then in all layers but one, and the layers where this costs or gives back
most of the log-probability difference (support/blindness.py) must be those that were planted. The criteria
then see other clips. Models planted by `window` show it in their masks, so they are reported apart from those
planted by `penalty`. The models in TUNED were looked at during the development of planting, and are marked.
The figures in the README are of an earlier rule for the recommended window, frozen before any planted model
was made, and of a truth by hiding one layer alone. The present rule has not been measured here.

The number of clips that are needed is estimated by cutting windows again from random subsets. Training takes
about ten minutes for each of the nine models on a CPU, measuring a few minutes.

With --score, nothing is trained or measured: the windows of any method are scored against the planted models
of analyses/planted_set.py, whose truth ships in support/planted/measured.json. One row for each model, number
of clips and draw, as CSV or a JSON list: plant, clips, draw, layers (such as 3-4,7; none abstains), and
optionally stability and boundaries, as in mi.FusionProfile. The format is described in
support/planted/scoring.py, the draws of clips in support/planted/truths.py; every model needs the same draws.
To abstain on a model that uses its audio counts as an IoU of 0.

\b
Examples
  python analyses/planted_truth.py                 trains the missing models, then measures
  python analyses/planted_truth.py --models 2-3,5 --share 0.1 --items 20 --json
  python analyses/planted_truth.py --score windows.json --role held-out
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import typer
from support.blindness import Truth, blindness
from support.planted.scoring import read_windows, score
from support.planted.truths import read_known
from support.planted_figure import draw

import mata_interp as mi
from mata_interp.errors import ArgumentError
from mata_interp.fusion import FusionProfile
from mata_interp.fusion.recommend import DECIDING, choose
from mata_interp.fusion.windows import overlap
from mata_interp.organism.planted_model import PlantedModelSpec, train_planted_model
from mata_interp.ranges import runs
from mata_interp.statistics import proportion

mpl.use("Agg")

MODELS = (
    PlantedModelSpec((3, 4, 5), "window"),
    PlantedModelSpec((2, 5), "window"),
    PlantedModelSpec((1,)),
    PlantedModelSpec((3, 4)),
    PlantedModelSpec((6, 7)),
    PlantedModelSpec((2, 3, 4, 5)),
    PlantedModelSpec((2, 5, 6)),
    PlantedModelSpec((5,), distractor_layers=(2, 3)),
    PlantedModelSpec(()),
)
TUNED = ("penalty-3-4", "penalty-2,5-6")
SIZES = (12, 25, 50, 100)  # numbers of clips, besides all
SUBSETS = 20


def main(
    work: Annotated[Path, typer.Option(help="Folder of the planted models.")] = Path("runs/planted-models"),
    models: Annotated[str, typer.Option(help="Which planted models, by number from 0: 0-3,8.")] = "0-8",
    items: Annotated[
        int, typer.Option(help="Largest number of items for the criteria, and of other items for the truth.")
    ] = 200,
    share: Annotated[float, typer.Option(help="Share of the training steps; below 1 for a trial.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Random seed of training, samples and bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    scored: Annotated[
        Path | None, typer.Option("--score", help="Instead: score the windows in this file, CSV or JSON.")
    ] = None,
    role: Annotated[
        str | None, typer.Option(help="With --score: development or held-out models only [default: all].")
    ] = None,
) -> None:
    """Train the models, measure truth and windows, compare, draw."""
    if scored is not None:
        print_scores(scored, role, as_json)
        return
    from mata_interp.cli.options import parse_layers

    results: dict[str, tuple[PlantedModelSpec, Truth, FusionProfile]] = {}
    for spec in (MODELS[i] for i in parse_layers(models)):
        folder = work / "models" / spec.name
        if not (folder / "config.json").exists():
            train_planted_model(spec, work / spec.name, folder, seed, share)
        results[spec.name] = (spec, *measured(mi.LALM.from_pretrained(folder), spec, items, seed))
    table = pd.DataFrame(
        [row for spec, truth, profile in results.values() for row in compare(spec, truth, profile)]
    )
    clips = pd.DataFrame([row for each in results.values() for row in by_clips(*each, seed)])
    overall = summary(table)
    work.mkdir(parents=True, exist_ok=True)
    table.to_csv(work / "planted_truth.csv", index=False)
    clips.to_csv(work / "planted_truth_by_clips.csv", index=False)
    draw(results, table, clips, overall, TUNED, work / "planted_truth.png")
    if as_json:
        frames: dict[str, Any] = {"rows": table, "summary": overall, "clips": clips}
        tables = {name: json.loads(frame.to_json(orient="records")) for name, frame in frames.items()}
        print(json.dumps(tables, indent=1))
        return
    print(table[table["criterion"] == "window"].drop(columns="criterion").to_string(index=False))
    print(f"\n{overall.to_string(index=False, float_format='%.2f')}")
    by_size: Any = clips.groupby("clips")[["iou", "right"]].mean()
    print(f"\n{by_size.to_string(float_format='%.2f')}")
    print(f"\nFigure: {work / 'planted_truth.png'}")


def print_scores(path: Path, role: str | None, as_json: bool) -> None:
    """Score the windows of a file against the planted models and print the tables."""
    try:
        tables = score(read_windows(path), read_known(role=role))
    except ArgumentError as error:
        raise typer.BadParameter(str(error), param_hint="--score") from error
    if as_json:
        print(
            json.dumps(
                {name: json.loads(str(t.to_json(orient="records"))) for name, t in tables.items()}, indent=1
            )
        )
        return
    for name, table in tables.items():
        print(f"\n{name}\n{table.to_string(index=False, float_format='%.3f')}")


def measured(lalm: mi.LALM, spec: PlantedModelSpec, items: int, seed: int) -> tuple[Truth, FusionProfile]:
    """The truth on clips of one split, and the profile on clips of the other."""
    # a model without fusion layers answers from captions alone
    items_of_condition = mi.load_benchmark("listening").filter(
        condition="neutral" if spec.fusion_layers else "congruent"
    )
    for_truth, for_criteria = (
        items_of_condition.split(name, seed=seed).sample(items, seed=seed)
        for name in ("confirmation", "selection")
    )
    return blindness(lalm, for_truth, seed), mi.fusion_layers(lalm, for_criteria, seed=seed)


def compare(spec: PlantedModelSpec, truth: Truth, profile: FusionProfile) -> list[dict[str, Any]]:
    """One row for each criterion, the recommended window first."""
    return [
        {
            "model": spec.name,
            "method": spec.method,
            "tuned_on": spec.name in TUNED,
            "criterion": name,
            "accuracy": round(truth.accuracy[0], 3),
            "planted": list(spec.fusion_layers),
            "truth": list(truth.layers),
            "as_planted": truth.layers == spec.fusion_layers,
            "found": list(window),
            "iou": overlap(window, truth.layers),
            "boundary_error": boundary_error(window, truth.layers),
        }
        for name, window in {"window": profile.window, **profile.windows}.items()
    ]


def boundary_error(estimate: Iterable[int], true: Iterable[int]) -> int | None:
    """Largest error of a boundary, in layers.

    A window may have several pieces. The error of a piece is the distance of its first layer from the nearest
    first layer of a piece of the other window, and likewise for last layers.

    Returns:
        The largest error over the pieces of both windows; None if one window is empty, 0 if both are.
    """
    sides = [list(zip(*runs(sorted(window)), strict=True)) for window in (estimate, true)]
    if not all(sides):
        return None if any(sides) else 0
    off = [
        min(abs(place - target) for target in targets)
        for left, right in zip(*sides, strict=True)
        for places, targets in ((left, right), (right, left))
        for place in places
    ]
    return max(off)


def by_clips(spec: PlantedModelSpec, truth: Truth, profile: FusionProfile, seed: int) -> list[dict[str, Any]]:
    """The recommended window from random subsets of clips: one row for each size, means over subsets."""
    assert profile.effect is not None
    causal = {name: profile.profiles.sel(criterion=name).values for name in DECIDING}
    clusters: Any = profile.profiles["cluster"].values
    clips, rng, rows = np.unique(clusters), np.random.default_rng(seed), []
    for size in [*(size for size in SIZES if size < len(clips)), len(clips)]:
        windows = []
        for _ in range(SUBSETS if size < len(clips) else 1):
            mask = np.isin(clusters, rng.choice(clips, size, replace=False))
            subset = {name: values[mask] for name, values in causal.items()}
            effect = profile.effect.values[mask]
            inside = choose(subset, clusters[mask], len(profile.layers), seed, effect, 0)[0].inside
            windows.append(tuple(np.array(profile.layers)[inside].tolist()))
        rows.append(
            {
                "model": spec.name,
                "clips": size,
                "subsets": len(windows),
                "iou": float(np.mean([overlap(window, truth.layers) for window in windows])),
                "right": float(np.mean([window == truth.layers for window in windows])),
            }
        )
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each criterion: mean IoU over all models, those of each method, and those not tuned on.

    Also the largest boundary error in layers, and the number of models whose window is exactly right, with
    the Wilson interval of its share.
    """
    rows = []
    part: Any
    for name, part in table.groupby("criterion", sort=False):
        right = proportion(part["iou"] == 1)
        worst = part["boundary_error"].dropna()
        rows.append(
            {
                "criterion": str(name),
                "iou": part["iou"].mean(),
                **{f"iou_{method}": each.mean() for method, each in part.groupby("method")["iou"]},
                "iou_held_out": part.loc[~part["tuned_on"], "iou"].mean(),
                "worst_boundary": int(worst.max()) if len(worst) else None,
                "one_empty": int(part["boundary_error"].isna().sum()),
                "right": int((part["iou"] == 1).sum()),
                "models": len(part),
                "right_low": float(right.low),
                "right_high": float(right.high),
            }
        )
    rows.sort(key=lambda row: (row["criterion"] != "window", -row["iou"]))
    return pd.DataFrame(rows)


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
