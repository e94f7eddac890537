"""A known illness with a known cure: the positive control of the tracer, the criteria and the sweep.

The healthy model that ships is made ill by an edit: c is subtracted from scores on the sound in layers a to b
(rule ``add``, alpha -c), those of the last token or of all text. These must then come out right, for every a,
b and c:

- the tracer names the layers and the dose: the log odds of sound against text, head by head, fall by c there;
- the sweep names them as well: of every window of layers with every strength, laid over the illness, the one
  that brings the options' log-probabilities back to the healthy ones is a to b with +c;
- that cure restores accuracy, and all log-probabilities up to rounding.

And the criteria of fusion, by themselves: each is measured on the healthy model and, with the illness as
baseline, on the ill one. What falls between the two is cut to a window by the package's rule for shares
(half of an even share at least, and above the noise). Two sets of layers are held against it: a to b; and
those of them that the healthy model reads the sound in (by hiding it from all text), for a cause cannot fall
where there was none. Where an early layer reads less, later ones get more to do, and other profiles change
there, too: such criteria say that something is ill, and not where.

    python analyses/known_illness.py
    python analyses/known_illness.py --windows "2-3;5;6-7" --doses 1,4 --queries last --items 60 --json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import typer
import xarray as xr

import mata_interp as mi
from mata_interp.attention import AttentionCall
from mata_interp.cli.options import parse_layers
from mata_interp.fusion import CRITERIA, FusionProfile
from mata_interp.fusion.windows import cut, draw, overlap
from mata_interp.interventions import Editing
from mata_interp.lalm.calls.attention_calls import Add, attention_calls
from mata_interp.ranges import layer_range

mpl.use("Agg")


def main(
    windows: Annotated[str, typer.Option(help="Layers made ill, one set after another.")] = "2-3;4-5;4-7",
    doses: Annotated[str, typer.Option(help="What is subtracted, comma-separated.")] = "1,4,16",
    queries: Annotated[str, typer.Option(help="Whose scores: last or text.")] = "text",
    model: Annotated[str, typer.Option(help="A model's name, folder or hub id.")] = "organism-unbiased",
    benchmark: Annotated[str, typer.Option(help="A benchmark's name or file.")] = "listening",
    items: Annotated[int, typer.Option(help="Items of the selection split.")] = 24,
    out: Annotated[Path, typer.Option(help="Folder of table and figure.")] = Path("runs/known-illness"),
    seed: Annotated[int, typer.Option(help="Of item choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Make ill, look, cure, draw."""
    lalm = mi.LALM.from_pretrained(model)
    split = mi.load_benchmark(benchmark).split("selection", seed=seed)
    # without a caption the sound has most to do, and each item is a clip of its own
    plain = split.filter(condition="neutral")
    chosen = list((plain if len(plain) else split).sample(items, seed=seed))
    strengths = [float(c) for c in doses.split(",")]
    rows, falls, traces = [], [], {}
    healthy = mi.fusion_layers(lalm, chosen, seed=seed)
    for text in windows.split(";"):
        layers = parse_layers(text)
        for dose in strengths:
            illness = mi.Mata(-dose, layers, "add", queries=queries)
            change = traced(lalm, chosen, illness)
            traces[layer_range(layers), dose] = change
            named = seen(change, lalm.attention_layers)
            rows.append({**named, **cured(lalm, chosen, illness, strengths)})
            falls += fallen(healthy, mi.fusion_layers(lalm, chosen, baseline=illness, seed=seed))
    table, criteria = pd.DataFrame(rows), pd.DataFrame(falls)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "illness.csv", index=False)
    criteria.to_csv(out / "criteria.csv", index=False)
    plot_traces(traces, lalm.attention_layers, out / "illness.png")
    plot_criteria(criteria, out / "criteria.png")
    if as_json:
        print(json.dumps({"illness": rows, "criteria": falls}, indent=1))
        return
    print(f"{lalm.name} made ill, {len(chosen)} items\n\n{table.to_string(index=False, float_format='%.3g')}")
    mean = criteria.groupby("criterion", sort=False)[["iou", "iou of the used"]].mean()
    print(f"\nCriteria, ill against healthy: overlap with the ill layers, mean over illnesses\n\n{mean}")
    for name, reason in healthy.refused.items():
        print(f"left out: {CRITERIA[name].label}: {reason}")
    print(f"\nFigures: {out / 'illness.png'}, {out / 'criteria.png'}")


def fallen(healthy: FusionProfile, ill: FusionProfile) -> list[dict[str, Any]]:
    """Of each criterion, the window of what fell from the healthy profile to the ill one, and whose it is."""
    (illness,) = ill.baseline
    layers, clusters = healthy.layers, list(healthy.profiles["cluster"].values)
    used = tuple(sorted({*illness.layers} & {*healthy.windows.get("knockout_text", ())}))
    rows = []
    for name in (name for name in healthy.windows if name in ill.windows):
        fall = healthy.profiles.sel(criterion=name).values - ill.profiles.sel(criterion=name).values
        inside, _ = cut("shares", draw(fall, clusters, healthy.seed))
        found = tuple(np.array(layers)[inside].tolist())
        rows.append(
            {
                "layers": layer_range(illness.layers),
                "dose": -illness.alpha,
                "criterion": name,
                "found": list(found),
                "iou": overlap(found, illness.layers),
                "iou of the used": overlap(found, used),
                "fall": [float(f"{value:.4g}") for value in fall.mean(0)],
            }
        )
    return rows


def traced(lalm: mi.LALM, items: Sequence[mi.Item], illness: mi.AttentionEdit) -> np.ndarray:
    """Change of the log odds of sound against all else in the last token's attention: mean over heads and
    items, [layers]; what the illness does, and what that does to later layers."""
    total = np.zeros(len(lalm.attention_layers))
    for begin in range(0, len(items), 8):
        prompt = lalm.prepare(lalm.prompt(items[begin : begin + 8]))
        total += (log_odds(lalm, prompt, illness) - log_odds(lalm, prompt, None)).sum(1)
    return total / len(items)


@torch.inference_mode()
def log_odds(lalm: mi.LALM, prompt: mi.Prompt, illness: mi.AttentionEdit | None) -> np.ndarray:
    """Of the last token, sound against all else, mean over heads: [layers, B]; read at the attention call,
    after the illness has done its work there."""
    editing = Editing([illness], prompt.groups, lalm.structure.heads) if illness else None
    audio = prompt.groups["audio"][:, None]  # (B, 1, L)
    odds = np.zeros((len(lalm.attention_layers), prompt.size))

    def on_call(layer: int, call: AttentionCall, tokens: int) -> Add | None:
        scores = call.scores(slice(-1, None))[:, :, 0]  # (B, H, L)
        ill = editing is not None and illness is not None and layer in editing.layers
        if ill and illness is not None:
            scores = scores + audio * illness.alpha
        sound = scores.masked_fill(~audio, -torch.inf).logsumexp(-1)
        rest = scores.masked_fill(audio, -torch.inf).logsumexp(-1)
        odds[lalm.attention_layers.index(layer)] = (sound - rest).mean(1).cpu().numpy()
        change = editing(layer, call, tokens) if ill and editing is not None else None
        return None if change is None else Add(*change)

    with attention_calls(lalm.structure, lalm.attention_layers, on_call) as run:
        run(partial(lalm.model, **prompt.inputs, use_cache=False))
    return odds


def seen(change: np.ndarray, layers: Sequence[int]) -> dict[str, object]:
    """What the tracer names: layers whose log odds fell by half of the largest fall; the mean fall."""
    inside = change <= change.min() / 2
    return {
        "traced layers": layer_range(np.array(layers)[inside].tolist()),
        "traced dose": float(-change[inside].mean()),
    }


def cured(
    lalm: mi.LALM, items: Sequence[mi.Item], illness: mi.AttentionEdit, strengths: Sequence[float]
) -> dict[str, object]:
    """What the sweep names, and how exactly the cure restores what was."""
    widths = range(1, len(lalm.attention_layers) // 2 + 1)
    cures = mi.window_configs(lalm, strengths, "add", widths, queries=illness.queries)
    named = {"healthy": None, "ill": illness, **{name: (illness, cure) for name, cure in cures.items()}}
    found = mi.sweep(lalm, items, named, progress=False)
    far = distance(found, "healthy")
    best = cures[str(far.sel(configuration=list(cures)).idxmin("configuration").item())]
    right = (found.fillna(-np.inf).argmax("choice") == found["answer"]).mean("item")
    margins = mi.margin(found).mean("item")
    true = next(n for n, m in cures.items() if m.layers == illness.layers and m.alpha == -illness.alpha)
    off = np.abs(found.sel(configuration=true) - found.sel(configuration="healthy"))
    return {
        "layers": layer_range(illness.layers),
        "dose": -illness.alpha,
        "swept layers": layer_range(best.layers),
        "swept dose": best.alpha,
        "accuracy healthy": float(right.sel(configuration="healthy")),
        "accuracy ill": float(right.sel(configuration="ill")),
        "accuracy cured": float(right.sel(configuration=true)),
        "margin lost": float(margins.sel(configuration="healthy") - margins.sel(configuration="ill")),
        "ill off by": float(far.sel(configuration="ill")),
        "cured off by": float(off.max()),
    }


def distance(found: xr.DataArray, reference: str) -> xr.DataArray:
    """Root mean square difference of the options' log-probabilities from those of one configuration."""
    return ((found - found.sel(configuration=reference, drop=True)) ** 2).mean(["item", "choice"]) ** 0.5


def plot_criteria(table: pd.DataFrame, path: Path) -> None:
    """Overlap of what each criterion finds with the ill layers: a row a criterion, a column an illness."""
    named = table.assign(
        ill=[f"{where}\nby {dose:g}" for where, dose in zip(table["layers"], table["dose"], strict=True)],
        label=[CRITERIA[name].label for name in table["criterion"]],
    )
    rows, columns = (list(dict.fromkeys(named[key])) for key in ("label", "ill"))
    grid: Any = named.pivot(index="label", columns="ill", values="iou").loc[rows, columns]
    sns.set_theme(style="ticks", context="paper")
    figure, axis = plt.subplots(figsize=(2.6 + 0.5 * len(columns), 0.9 + 0.24 * len(rows)))
    sns.heatmap(
        grid, ax=axis, vmin=0, vmax=1, cmap="Blues", annot=True, fmt=".2f", annot_kws={"fontsize": 7},
        linewidths=0.5, cbar=False,
    )  # fmt: skip
    axis.set(
        xlabel="layers made ill, and dose", ylabel="", title="overlap (IoU) of what fell with what is ill"
    )
    figure.savefig(path, dpi=160, bbox_inches="tight")
    plt.close(figure)


def plot_traces(traces: dict[tuple[str, float], np.ndarray], layers: Sequence[int], path: Path) -> None:
    """One panel an illness's layers: what the tracer sees, a line a dose; dashed is the truth."""
    long = pd.DataFrame([
        {"ill": ill, "dose": f"{dose:g}", "layer": layer, "change": value}
        for (ill, dose), change in traces.items()
        for layer, value in zip(layers, change, strict=True)
    ])  # fmt: skip
    sns.set_theme(style="ticks", context="paper", palette="colorblind")
    grid = sns.relplot(
        long, x="layer", y="change", hue="dose", col="ill", kind="line", marker="o", height=2.6, aspect=1.1
    )
    for ill, axis in grid.axes_dict.items():
        inside = [layer in parse_layers(ill.replace("\u2013", "-")) for layer in layers]
        for number, dose in enumerate(dict.fromkeys(d for where, d in traces if where == ill)):
            truth = np.where(inside, -dose, 0.0)
            axis.step(layers, truth, where="mid", linestyle="--", linewidth=0.8, color=f"C{number}")
    grid.set_axis_labels("layer", "log odds of sound, change")
    grid.set_titles("made ill in {col_name}")
    grid.savefig(path, dpi=160)


if __name__ == "__main__":
    typer.run(main)
