"""How much do models attend to audio when they answer, and does a caption change that?

For each model, the audio share of the last prompt token's attention by layer and caption condition, with 95 %
intervals over clips, beside the published measures MDI and AEI. Attention only: it does not show what a model
uses; see causal_effect.py. Without --model, the two small models that ship are compared: `organism`, which
over-relies on captions, and `organism-unbiased`, the model it was tuned from. About a minute on a CPU.

\b
Examples
  python analyses/attention_imbalance.py
  python analyses/attention_imbalance.py --model Qwen/Qwen2-Audio-7B-Instruct --benchmark mmau.json
  python analyses/attention_imbalance.py --json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import pandas as pd
import seaborn as sns
import typer
import xarray as xr

import mata_interp as mi
from mata_interp.statistics import clustered_interval

mpl.use("Agg")


def main(
    model: Annotated[
        list[str] | None, typer.Option(help="Name, folder or hub id of a model; repeat it for several.")
    ] = None,
    benchmark: Annotated[str, typer.Option(help="Name or file of a benchmark.")] = "listening",
    items: Annotated[int, typer.Option(help="Largest number of items, from the selection split.")] = 180,
    out: Annotated[Path, typer.Option(help="Folder of the figure and the table.")] = Path(
        "runs/attention-imbalance"
    ),
    seed: Annotated[int, typer.Option(help="Random seed of the sample.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Trace the models, summarise by layer and caption condition, draw."""
    models = model or ["organism", "organism-unbiased"]
    chosen = mi.load_benchmark(benchmark).split("selection", seed=seed).sample(items, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    tables = []
    for name in models:
        lalm = mi.LALM.from_pretrained(name)
        trace = mi.trace(lalm, chosen.drop_undecodable(lalm.sampling_rate))
        tables.append(summarise(trace).assign(model=name))
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(out / "imbalance.csv", index=False)
    draw(table, out / "imbalance.png")
    if as_json:
        print(table.to_json(orient="records", indent=1))
        return
    wide = table.pivot_table("audio_share", ["model", "layer"], "condition", sort=False)
    print(f"Audio share A / (A + T) of the last prompt token, without the sink ({len(chosen)} items)\n")
    print(wide.to_string(float_format="{:.3f}".format))
    print(f"\nMDI and AEI (arXiv 2508.10552) and intervals: {out / 'imbalance.csv'}")
    print(f"Figure: {out / 'imbalance.png'}")


def summarise(trace: xr.Dataset) -> pd.DataFrame:
    """One row per caption condition and layer: audio share, 95 % interval over clips, MDI, AEI.

    Means are over items and intervals over clips, as on the page of a study.
    """
    rows = []
    for condition, part in trace.groupby("condition"):
        share = mi.audio_share(part).mean("head").transpose("item", "layer").values
        clips = part["cluster"].values
        mean, low, high = clustered_interval(share, clips, bounds=(0, 1))
        mdi, aei = mi.mdi(part).mean("item").values, mi.aei(part).mean("item").values
        rows += [
            {
                "condition": condition or "all",
                "layer": int(layer),
                "audio_share": float(mean[i]),
                "low": float(low[i]),
                "high": float(high[i]),
                "mdi": float(mdi[i]),
                "aei": float(aei[i]),
                "clips": len(set(clips)),
            }
            for i, layer in enumerate(part["layer"].values)
        ]
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """One panel for each model, one line for each caption condition."""
    sns.set_theme(style="ticks", context="paper", palette="colorblind")
    grid = sns.FacetGrid(table, col="model", height=2.6, aspect=1.35)
    for (name, axis), legend in zip(
        grid.axes_dict.items(), [*[False] * (len(grid.axes_dict) - 1), True], strict=True
    ):
        for condition, rows in table[table["model"] == name].groupby("condition", sort=False):
            axis.plot(rows["layer"], rows["audio_share"], marker="o", markersize=3, label=condition)
            axis.fill_between(rows["layer"], rows["low"], rows["high"], alpha=0.2, linewidth=0)
        axis.set(xlabel="decoder layer", ylabel="audio share of attention", ylim=(0, 1))
        axis.axhline(0.5, color="0.7", linewidth=0.8, zorder=0)
        if legend:
            axis.legend(title="caption", frameon=False)
    grid.set_titles("{col_name}")
    sns.despine()
    grid.savefig(path, dpi=160)


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
