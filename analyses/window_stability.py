"""Is the recommended window the same on other clips?

The clips of a benchmark are divided at random into disjoint sets of equal size, with one item for each clip.
On each set `mi.fusion_layers` recommends a window, from the criteria that decide it. The overlap of two
windows is their IoU, layers in both over layers in either; a set without a window overlaps with no other.

Sets that are done are kept: the same command continues. A set of 48 clips of the assembled model takes about
five minutes on one core.

\b
Examples
  python analyses/window_stability.py --sets 3
  python analyses/window_stability.py --model runs/assembled \\
    --benchmark runs/assembled/benchmark/assembled.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

import mata_interp as mi
from mata_interp.fusion.recommend import DECIDING
from mata_interp.fusion.windows import overlap
from mata_interp.ranges import layer_range
from mata_interp.seeding import named_generator


def main(
    model: Annotated[str, typer.Option(help="Name, folder or hub id of the model.")] = "organism",
    benchmark: Annotated[str, typer.Option(help="Name or file of a benchmark.")] = "listening",
    condition: Annotated[str, typer.Option(help="Condition of the items to use.")] = "neutral",
    sets: Annotated[int, typer.Option(min=2, help="Number of disjoint sets of clips.")] = 5,
    clips: Annotated[
        int | None, typer.Option(min=5, help="Clips of a set [default: as many as fit].")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the profiles and the result.")] = Path(
        "runs/window-stability"
    ),
    seed: Annotated[int, typer.Option(help="Random seed of the sets.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Divide the clips, recommend a window on each set, compare."""
    lalm, data = mi.LALM.from_pretrained(model), mi.load_benchmark(benchmark)
    chosen = data.filter(condition=condition)
    if not len(chosen):
        raise typer.BadParameter(f"{benchmark} has no items with condition {condition!r}.")
    rows = []
    for n, items in enumerate(disjoint(list(chosen), sets, clips, seed)):
        profile = mi.fusion_layers(lalm, items, criteria=DECIDING, seed=seed, out=out / f"profile-{n}.json")
        rows.append({"window": list(profile.window), "clips": len(items), "sentence": profile.summary})
    result = {"model": lalm.name, "condition": condition, "sets": rows, **overlaps(rows)}
    (out / "window_stability.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if as_json else report(result))


def disjoint(items: Sequence[mi.Item], sets: int, clips: int | None, seed: int) -> list[list[mi.Item]]:
    """Disjoint sets of clips, one item of each clip.

    Raises:
        typer.BadParameter: there are too few clips.
    """
    of_clip: dict[str, mi.Item] = {}
    for item in items:
        of_clip.setdefault(item.cluster, item)
    names = sorted(of_clip)
    size = clips or len(names) // sets
    if size < 1 or sets * size > len(names):
        raise typer.BadParameter(f"{len(names)} clips are too few for {sets} sets of {max(size, 1)}.")
    order = named_generator(seed, "sets of clips").permutation(len(names))
    return [[of_clip[names[k]] for k in order[n * size : (n + 1) * size]] for n in range(sets)]


def overlaps(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """IoU of each pair of windows, their mean and the smallest; a missing window overlaps with none."""
    windows = [row["window"] for row in rows]
    pairs = [overlap(a, b) if a and b else 0.0 for a, b in combinations(windows, 2)]
    return {"iou": pairs, "mean_iou": fmean(pairs), "smallest_iou": min(pairs)}


def report(result: Mapping[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{len(result['sets'])} disjoint sets of {result['sets'][0]['clips']} clips, {result['model']}, "
        f"items with condition {result['condition']!r}:"
    ]
    lines += [
        f"  {layer_range(row['window']) if row['window'] else 'no window'}: {row['sentence']}"
        for row in result["sets"]
    ]
    lines.append(
        f"IoU of two windows: mean {result['mean_iou']:.2f}, smallest {result['smallest_iou']:.2f}, over "
        f"{len(result['iou'])} pairs."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
