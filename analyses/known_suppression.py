"""Do the tracer, the sweep and the layer criteria find a suppression that is known? A positive control.

An edit suppresses attention to audio in the intact model that ships with the package: c is subtracted from
the scores of audio keys in layers a to b (rule ``add``, alpha -c), for the last token or for all text. These
must then be correct, for every a, b and c:

- the tracer finds the layers and the dose: the log odds of audio against text fall by c there, head by head;
- the sweep finds them as well: among all windows of layers and all strengths, applied on top of the
  suppression, the one that restores the options' log-probabilities of the intact model is a to b with +c;
- that inverse edit restores accuracy, and all log-probabilities up to rounding.

The criteria of fusion are tested separately: each is measured on the intact model and, with the suppression
as baseline, on the suppressed one. The fall between the two becomes a window by the package's rule for shares
(at least half of an equal share, and above the noise). It is compared with two sets of layers: a to b; and
those of them in which the intact model reads the audio (by hiding it from all text), because the effect of a
layer cannot fall where there was none. Where an early layer reads less, later ones read more, and other
profiles change there, too: such criteria show that something is suppressed, not where.

\b
Examples
  python analyses/known_suppression.py
  python analyses/known_suppression.py --windows "2-3;5;6-7" --doses 1,4 --queries last --items 60 --json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from mata_interp.fusion.windows import apply_window_rule, overlap
from mata_interp.interventions import Editing
from mata_interp.lalm.calls.attention_calls import Add, attention_calls
from mata_interp.ranges import layer_range

mpl.use("Agg")


def main(
    windows: Annotated[str, typer.Option(help="Sets of suppressed layers, tried in turn.")] = "2-3;4-5;4-7",
    doses: Annotated[str, typer.Option(help="Numbers to subtract, comma-separated.")] = "1,4,16",
    queries: Annotated[str, typer.Option(help="Queries to suppress: last or text.")] = "text",
    model: Annotated[str, typer.Option(help="Name, folder or hub id of a model.")] = "organism-unbiased",
    benchmark: Annotated[str, typer.Option(help="Name or file of a benchmark.")] = "listening",
    items: Annotated[int, typer.Option(help="Number of items from the selection split.")] = 24,
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path(
        "runs/known-suppression"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the choice of items.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tables as JSON.")] = False,
) -> None:
    """Suppress, trace, sweep, measure the criteria, plot."""
    lalm = mi.LALM.from_pretrained(model)
    split = mi.load_benchmark(benchmark).split("selection", seed=seed)
    # without captions the audio has most effect, and every item has a clip of its own
    neutral = split.filter(condition="neutral")
    chosen = list((neutral if len(neutral) else split).sample(items, seed=seed))
    strengths = [float(c) for c in doses.split(",")]
    rows, falls, traces = [], [], {}
    intact = mi.fusion_layers(lalm, chosen, seed=seed)
    for text in windows.split(";"):
        layers = parse_layers(text)
        for dose in strengths:
            suppression = mi.Mata(-dose, layers, "add", queries=queries)
            change = change_of_log_odds(lalm, chosen, suppression)
            traces[layer_range(layers), dose] = change
            located = locate(change, lalm.attention_layers)
            rows.append({**located, **sweep_inverse_edits(lalm, chosen, suppression, strengths)})
            suppressed = mi.fusion_layers(lalm, chosen, baseline=suppression, seed=seed)
            falls += criterion_falls(intact, suppressed)
    table, criteria = pd.DataFrame(rows), pd.DataFrame(falls)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "suppression.csv", index=False)
    criteria.to_csv(out / "criteria.csv", index=False)
    plot_traces(traces, lalm.attention_layers, out / "suppression.png")
    plot_criteria(criteria, out / "criteria.png")
    if as_json:
        print(json.dumps({"suppression": rows, "criteria": falls}, indent=1))
        return
    printed = table.to_string(index=False, float_format="%.3g")
    print(f"{lalm.name} with suppressed attention to audio, {len(chosen)} items\n\n{printed}")
    mean = criteria.groupby("criterion", sort=False)[["iou", "iou of the used"]].mean()
    print(f"\nCriteria, suppressed against intact: mean overlap with the suppressed layers\n\n{mean}")
    for name, reason in intact.refused.items():
        print(f"not measured: {CRITERIA[name].label}: {reason}")
    print(f"\nFigures: {out / 'suppression.png'}, {out / 'criteria.png'}")


def criterion_falls(intact: FusionProfile, suppressed: FusionProfile) -> list[dict[str, Any]]:
    """For each criterion, the window of its fall from the intact to the suppressed profile, and its overlap
    with the suppressed layers."""
    (suppression,) = suppressed.baseline
    layers, clusters = intact.layers, list(intact.profiles["cluster"].values)
    used = tuple(sorted({*suppression.layers} & {*intact.windows.get("knockout_text", ())}))
    rows = []
    for name in (name for name in intact.windows if name in suppressed.windows):
        fall = intact.profiles.sel(criterion=name).values - suppressed.profiles.sel(criterion=name).values
        inside, _ = apply_window_rule("shares", fall, clusters, intact.seed)
        window = tuple(np.array(layers)[inside].tolist())
        rows.append(
            {
                "layers": layer_range(suppression.layers),
                "dose": -suppression.alpha,
                "criterion": name,
                "window": list(window),
                "iou": overlap(window, suppression.layers),
                "iou of the used": overlap(window, used),
                "fall": [float(f"{value:.4g}") for value in fall.mean(0)],
            }
        )
    return rows


def change_of_log_odds(lalm: mi.LALM, items: Sequence[mi.Item], suppression: mi.AttentionEdit) -> np.ndarray:
    """Change of the log odds of audio against all else in the last token's attention, [layers]: mean over
    heads and items of the effect of the suppression, including its effect on later layers."""
    total = np.zeros(len(lalm.attention_layers))
    for begin in range(0, len(items), 8):
        prompt = lalm.prepare(lalm.prompt(items[begin : begin + 8]))
        total += (log_odds(lalm, prompt, suppression) - log_odds(lalm, prompt, None)).sum(1)
    return total / len(items)


@torch.inference_mode()
def log_odds(lalm: mi.LALM, prompt: mi.Prompt, suppression: mi.AttentionEdit | None) -> np.ndarray:
    """Log odds of audio against all else in the last token's attention, mean over heads: [layers, B]; read at
    the attention call, with the suppression applied there."""
    editing = Editing([suppression], prompt.groups, lalm.structure.heads) if suppression else None
    audio = prompt.groups["audio"][:, None]  # (B, 1, L)
    odds = np.zeros((len(lalm.attention_layers), prompt.size))

    def on_call(layer: int, call: AttentionCall, total: int) -> Add | None:
        scores = call.scores(slice(-1, None))[:, :, 0]  # (B, H, L)
        edited = editing is not None and suppression is not None and layer in editing.layers
        if edited and suppression is not None:
            scores = scores + audio * suppression.alpha
        on_audio = scores.masked_fill(~audio, -torch.inf).logsumexp(-1)
        on_rest = scores.masked_fill(audio, -torch.inf).logsumexp(-1)
        odds[lalm.attention_layers.index(layer)] = (on_audio - on_rest).mean(1).cpu().numpy()
        change = editing(layer, call, total) if edited and editing is not None else None
        return None if change is None else Add(*change)

    with attention_calls(lalm.structure, lalm.attention_layers, on_call) as run:
        run(lambda: lalm.model(**prompt.inputs, use_cache=False))
    return odds


def locate(change: np.ndarray, layers: Sequence[int]) -> dict[str, object]:
    """What the tracer finds: layers whose log odds fell by at least half of the largest fall, and their mean
    fall."""
    inside = change <= change.min() / 2
    return {
        "traced layers": layer_range(np.array(layers)[inside].tolist()),
        "traced dose": float(-change[inside].mean()),
    }


def sweep_inverse_edits(
    lalm: mi.LALM, items: Sequence[mi.Item], suppression: mi.AttentionEdit, strengths: Sequence[float]
) -> dict[str, object]:
    """What the sweep finds, and how exactly the inverse edit restores the intact model."""
    widths = range(1, len(lalm.attention_layers) // 2 + 1)
    inverses = mi.window_configs(lalm, strengths, "add", widths, queries=suppression.queries)
    configurations = {"intact": None, "suppressed": suppression}
    configurations |= {name: (suppression, inverse) for name, inverse in inverses.items()}
    swept = mi.sweep(lalm, items, configurations, progress=False)
    distances = distance(swept, "intact")
    best = inverses[str(distances.sel(configuration=list(inverses)).idxmin("configuration").item())]
    accuracy = mi.correct(swept).mean("item")
    margins = mi.margin(swept).mean("item")
    exact = next(
        name
        for name, inverse in inverses.items()
        if inverse.layers == suppression.layers and inverse.alpha == -suppression.alpha
    )
    residual = np.abs(swept.sel(configuration=exact) - swept.sel(configuration="intact"))
    return {
        "layers": layer_range(suppression.layers),
        "dose": -suppression.alpha,
        "swept layers": layer_range(best.layers),
        "swept dose": best.alpha,
        "accuracy intact": float(accuracy.sel(configuration="intact")),
        "accuracy suppressed": float(accuracy.sel(configuration="suppressed")),
        "accuracy restored": float(accuracy.sel(configuration=exact)),
        "margin lost": float(margins.sel(configuration="intact") - margins.sel(configuration="suppressed")),
        "suppressed distance": float(distances.sel(configuration="suppressed")),
        "restored difference": float(residual.max()),
    }


def distance(swept: xr.DataArray, reference: str) -> xr.DataArray:
    """Root mean square difference of the options' log-probabilities from those of one configuration."""
    return ((swept - swept.sel(configuration=reference, drop=True)) ** 2).mean(["item", "choice"]) ** 0.5


def plot_criteria(table: pd.DataFrame, path: Path) -> None:
    """Overlap of each criterion's window with the suppressed layers: a row per criterion, a column per
    suppression."""
    named = table.assign(
        suppressed=[
            f"{where}\nby {dose:g}" for where, dose in zip(table["layers"], table["dose"], strict=True)
        ],
        label=[CRITERIA[name].label for name in table["criterion"]],
    )
    rows, columns = (list(dict.fromkeys(named[key])) for key in ("label", "suppressed"))
    grid: Any = named.pivot(index="label", columns="suppressed", values="iou").loc[rows, columns]
    sns.set_theme(style="ticks", context="paper")
    figure, axis = plt.subplots(figsize=(2.6 + 0.5 * len(columns), 0.9 + 0.24 * len(rows)))
    sns.heatmap(
        grid, ax=axis, vmin=0, vmax=1, cmap="Blues", annot=True, fmt=".2f", annot_kws={"fontsize": 7},
        linewidths=0.5, cbar=False,
    )  # fmt: skip
    axis.set(
        xlabel="suppressed layers, and dose",
        ylabel="",
        title="overlap (IoU) of the fall with the suppressed layers",
    )
    figure.savefig(path, dpi=160, bbox_inches="tight")
    plt.close(figure)


def plot_traces(traces: dict[tuple[str, float], np.ndarray], layers: Sequence[int], path: Path) -> None:
    """The traced change: a panel per set of layers, a line per dose, dashed lines for the truth."""
    long = pd.DataFrame([
        {"suppressed": suppressed, "dose": f"{dose:g}", "layer": layer, "change": value}
        for (suppressed, dose), change in traces.items()
        for layer, value in zip(layers, change, strict=True)
    ])  # fmt: skip
    sns.set_theme(style="ticks", context="paper", palette="colorblind")
    grid = sns.relplot(
        long,
        x="layer",
        y="change",
        hue="dose",
        col="suppressed",
        kind="line",
        marker="o",
        height=2.6,
        aspect=1.1,
    )
    for suppressed, axis in grid.axes_dict.items():
        inside = [layer in parse_layers(suppressed.replace("\u2013", "-")) for layer in layers]
        for number, dose in enumerate(dict.fromkeys(d for where, d in traces if where == suppressed)):
            truth = np.where(inside, -dose, 0.0)
            axis.step(layers, truth, where="mid", linestyle="--", linewidth=0.8, color=f"C{number}")
    grid.set_axis_labels("layer", "log odds of audio, change")
    grid.set_titles("suppressed in {col_name}")
    grid.savefig(path, dpi=160)


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
