"""Do the criteria find fusion layers that are known? Every criterion against every plant.

A plant is an organism trained to read the sound in chosen layers only (mata_interp.organism.planting): either
all other layers attend over a window too short to reach it, or attention to it cost loss there. What is true
of a plant is not taken on trust: one layer after the other is made blind to the sound for all text, and the
layers whose blindness costs the margin are the truth (support/blindness.py), which must be those that were
planted. Criteria then see other clips. Plants by window show in the masks, so they are reported apart from
those by penalty, which must be inferred. The rule for the recommended window was frozen before any plant was
made; the plants of TUNED were looked at while the making of plants was worked on, and are marked.

How many clips does it take? From what was measured on all of them, windows are cut anew from random fewer.

    python analyses/planted_truth.py                 trains what is missing (minutes each), then measures
    python analyses/planted_truth.py --plants 2-3,5 --share 0.1 --items 20 --json
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
from support.planted_figure import draw

import mata_interp as mi
from mata_interp.fusion import FusionProfile
from mata_interp.fusion.recommend import CAUSES, choose
from mata_interp.fusion.windows import DRAWS, cluster_bootstrap_means, overlap
from mata_interp.organism.planting import Plant, rear_plant
from mata_interp.ranges import runs
from mata_interp.statistics import proportion

mpl.use("Agg")

PLANTS = (
    Plant((3, 4, 5), "window"),
    Plant((2, 5), "window"),
    Plant((1,)),
    Plant((3, 4)),
    Plant((6, 7)),
    Plant((2, 3, 4, 5)),
    Plant((2, 5, 6)),
    Plant((5,), decoys=(2, 3)),
    Plant(()),
)
TUNED = ("penalty-3-4", "penalty-2,5-6")
SIZES = (12, 25, 50, 100)  # clips; and all
SUBSETS = 20


def main(
    work: Annotated[Path, typer.Option(help="Where plants are trained and kept.")] = Path("runs/plants"),
    plants: Annotated[str, typer.Option(help="Which of the plants, by number from 0: 0-3,8.")] = "0-8",
    items: Annotated[
        int, typer.Option(help="Items the criteria see; the truth is found on as many others.")
    ] = 200,
    share: Annotated[float, typer.Option(help="Of the training steps, to try it.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of training, item choice and bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print all as JSON.")] = False,
) -> None:
    """Train, find the truth, find the windows, compare, draw."""
    from mata_interp.cli.options import parse_layers

    found: dict[str, tuple[Plant, Truth, FusionProfile]] = {}
    for spec in (PLANTS[i] for i in parse_layers(plants)):
        folder = work / "models" / spec.name
        if not (folder / "config.json").exists():
            rear_plant(spec, work / spec.name, folder, seed, share)
        found[spec.name] = (spec, *measured(mi.LALM.from_pretrained(folder), spec, items, seed))
    table = pd.DataFrame(
        [row for spec, truth, profile in found.values() for row in compare(spec, truth, profile)]
    )
    clips = pd.DataFrame([row for each in found.values() for row in by_clips(*each, seed)])
    overall = summary(table)
    work.mkdir(parents=True, exist_ok=True)
    table.to_csv(work / "planted_truth.csv", index=False)
    clips.to_csv(work / "planted_truth_by_clips.csv", index=False)
    draw(found, table, clips, overall, TUNED, work / "planted_truth.png")
    if as_json:
        frames: dict[str, Any] = {"rows": table, "summary": overall, "clips": clips}
        told = {name: json.loads(frame.to_json(orient="records")) for name, frame in frames.items()}
        print(json.dumps(told, indent=1))
        return
    print(table[table["criterion"] == "window"].drop(columns="criterion").to_string(index=False))
    print(f"\n{overall.to_string(index=False, float_format='%.2f')}")
    by_size: Any = clips.groupby("clips")[["iou", "right"]].mean()
    print(f"\n{by_size.to_string(float_format='%.2f')}")
    print(f"\nFigure: {work / 'planted_truth.png'}")


def measured(lalm: mi.LALM, spec: Plant, items: int, seed: int) -> tuple[Truth, FusionProfile]:
    """The truth on clips of one split, what the criteria say on those of the other."""
    # a plant without fusion answers by captions alone
    asked = mi.load_benchmark("listening").filter(condition="neutral" if spec.fusion else "congruent")
    unseen, seen = (
        asked.split(name, seed=seed).sample(items, seed=seed) for name in ("confirmation", "selection")
    )
    return blindness(lalm, unseen, seed), mi.fusion_layers(lalm, seen, seed=seed)


def compare(spec: Plant, truth: Truth, profile: FusionProfile) -> list[dict[str, Any]]:
    """One row a criterion, the recommended window first."""
    return [
        {
            "plant": spec.name,
            "way": spec.way,
            "tuned_on": spec.name in TUNED,
            "criterion": name,
            "accuracy": round(truth.accuracy[0], 3),
            "planted": list(spec.fusion),
            "truth": list(truth.layers),
            "as_planted": truth.layers == spec.fusion,
            "found": list(window),
            "iou": overlap(window, truth.layers),
            "boundary_error": boundary_error(window, truth.layers),
        }
        for name, window in {"window": profile.window, **profile.windows}.items()
    ]


def boundary_error(found: Iterable[int], true: Iterable[int]) -> int | None:
    """By how many layers the worst boundary is off: the distance from any piece's first layer to the nearest
    first layer of the other window, and so with last ones. None where one of the two windows is empty, and 0
    where both are."""
    sides = [list(zip(*runs(sorted(window)), strict=True)) for window in (found, true)]
    if not all(sides):
        return None if any(sides) else 0
    off = [
        min(abs(place - other) for other in others)
        for mine, theirs in zip(*sides, strict=True)
        for one, others in ((mine, theirs), (theirs, mine))
        for place in one
    ]
    return max(off)


def by_clips(spec: Plant, truth: Truth, profile: FusionProfile, seed: int) -> list[dict[str, Any]]:
    """The recommended window from random fewer clips: one row a number of clips, means over subsets."""
    of_causes = {name: profile.profiles.sel(criterion=name).values for name in CAUSES}
    clusters: Any = profile.profiles["cluster"].values
    clips, rng, rows = np.unique(clusters), np.random.default_rng(seed), []
    for size in [*(size for size in SIZES if size < len(clips)), len(clips)]:
        windows = []
        for _ in range(SUBSETS if size < len(clips) else 1):
            kept = np.isin(clusters, rng.choice(clips, size, replace=False))
            draws = {
                name: cluster_bootstrap_means(values[kept], clusters[kept], DRAWS, seed)
                for name, values in of_causes.items()
            }
            inside = choose(draws, len(profile.layers)).inside
            windows.append(tuple(np.array(profile.layers)[inside].tolist()))
        rows.append(
            {
                "plant": spec.name,
                "clips": size,
                "subsets": len(windows),
                "iou": float(np.mean([overlap(window, truth.layers) for window in windows])),
                "right": float(np.mean([window == truth.layers for window in windows])),
            }
        )
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Of every criterion: mean IoU over all plants, those of each way and those not tuned on; its worst
    boundary error, layers; how many plants it got exactly right, the share with its Wilson interval."""
    rows = []
    part: Any
    for name, part in table.groupby("criterion", sort=False):
        right = proportion(part["iou"] == 1)
        worst = part["boundary_error"].dropna()
        rows.append(
            {
                "criterion": str(name),
                "iou": part["iou"].mean(),
                **{f"iou_{way}": each.mean() for way, each in part.groupby("way")["iou"]},
                "iou_held_out": part.loc[~part["tuned_on"], "iou"].mean(),
                "worst_boundary": int(worst.max()) if len(worst) else None,
                "one_empty": int(part["boundary_error"].isna().sum()),
                "right": int((part["iou"] == 1).sum()),
                "plants": len(part),
                "right_low": float(right.low),
                "right_high": float(right.high),
            }
        )
    rows.sort(key=lambda row: (row["criterion"] != "window", -row["iou"]))
    return pd.DataFrame(rows)


if __name__ == "__main__":
    typer.run(main)
