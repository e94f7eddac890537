"""Does more attention to audio cause better answers? The effect by dose, beside the same dose on text.

Runs MATA at several strengths in the given layers, on the confirmation split, and the same rule on text keys
as a control. Every difference has a confidence interval, clustered by clip; p-values are Holm-adjusted over
all strengths and captions. A negative alpha lowers attention to audio, which should harm answers where
attention matters. The analysis is exploratory: the strengths are not chosen on other clips. `mata-interp
study` runs the confirmatory test. About a minute on a CPU.

\b
Examples
  python analyses/causal_effect.py
  python analyses/causal_effect.py --layers 2-5 --alphas=-1,0.3,1,3 --items 300 --json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import typer

import mata_interp as mi
from mata_interp.cli.options import parse_layers

mpl.use("Agg")


def main(
    layers: Annotated[str, typer.Option(help="Decoder layers, both ends included: 4-7 or 3-4,6.")] = "4-7",
    alphas: Annotated[str, typer.Option(help="Strengths, separated by commas.")] = "-1,0.3,1,3",
    rule: Annotated[str, typer.Option(help="Rule of the edit: abs, mul or add.")] = "abs",
    model: Annotated[str, typer.Option(help="Name, folder or hub id of the model.")] = "organism",
    benchmark: Annotated[str, typer.Option(help="Name or file of a benchmark.")] = "listening",
    items: Annotated[int, typer.Option(help="Largest number of items, from the confirmation split.")] = 240,
    out: Annotated[Path, typer.Option(help="Run folder, with the figure and the table.")] = Path(
        "runs/causal-effect"
    ),
    seed: Annotated[int, typer.Option(help="Random seed of the sample and the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the effects as JSON.")] = False,
) -> None:
    """Run all conditions, compare them with the baseline, draw."""
    lalm = mi.LALM.from_pretrained(model)
    chosen = mi.load_benchmark(benchmark).split("confirmation", seed=seed).sample(items, seed=seed)
    strengths = [float(a) for a in alphas.split(",")]
    conditions: dict[str, mi.AttentionEdit | None] = {"baseline": None}
    for keys in ("audio", "text"):
        conditions |= {
            f"{keys} {a:g}": mi.Mata(a, parse_layers(layers), rule=rule, keys=keys) for a in strengths
        }
    run = mi.run(lalm, chosen, conditions, out=out, seed=seed)
    effects = compare(run.records, strengths, seed)
    effects.to_csv(out / "effects.csv", index=False)
    draw(effects, out / "effect_by_dose.png")
    if as_json:
        print(effects.to_json(orient="records", indent=1))
        return
    columns = effects[
        ["keys", "alpha", "caption", "n", "fixed", "broken", "difference", "low", "high", "p_holm", "dose_kl"]
    ]
    print(f"Change of accuracy against the baseline; layers {layers}, rule {rule}, {len(chosen)} items\n")
    print(columns.to_string(index=False, float_format="%.3f"))
    print(f"\nFigure: {out / 'effect_by_dose.png'}")


def compare(records: pd.DataFrame, strengths: list[float], seed: int) -> pd.DataFrame:
    """One row for each strength, keys and caption: paired effect on accuracy, and dose (mean KL)."""
    tables = {name: rows.set_index("item") for name, rows in records.groupby("condition")}
    rows = []
    for keys in ("audio", "text"):
        for alpha in strengths:
            after = tables[f"{keys} {alpha:g}"]
            for caption, before in tables["baseline"].groupby("caption_condition"):
                edited = after.loc[before.index]
                effect = mi.paired_effect(
                    before["correct"].astype(float),
                    edited["correct"].astype(float),
                    clusters=before["cluster"],
                    seed=seed,
                )
                dose = float(edited["dose_kl"].mean())
                rows.append(
                    {"keys": keys, "alpha": alpha, "caption": caption, "dose_kl": dose, **effect.to_dict()}
                )
    effects = pd.DataFrame(rows)
    effects["p_holm"] = mi.holm(effects["p"].to_numpy())
    return effects


def draw(effects: pd.DataFrame, path: Path) -> None:
    """One panel for each caption: change of accuracy by strength, for MATA and for the same rule on text."""
    sns.set_theme(style="ticks", context="paper", palette="colorblind")
    captions = list(effects["caption"].unique())
    order = sorted(effects["alpha"].unique())
    grid = sns.FacetGrid(effects, col="caption", col_order=captions, height=2.6, aspect=1.15)
    for caption, axis in grid.axes_dict.items():
        for shift, (keys, rows) in zip(
            (-0.08, 0.08), effects[effects["caption"] == caption].groupby("keys"), strict=True
        ):
            x = [order.index(a) + shift for a in rows["alpha"]]
            y = 100 * rows["difference"]
            # rounding must not make an error negative
            error = np.maximum([y - 100 * rows["low"], 100 * rows["high"] - y], 0)
            axis.errorbar(x, y, error, marker="o", markersize=4, linestyle="", label=f"raise {keys}")
        axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axis.set(xlabel="alpha", ylabel="change of accuracy (points)")
        axis.set_xticks(range(len(order)), [f"{a:g}" for a in order])
    grid.axes.flat[-1].legend(frameon=False)
    grid.set_titles("{col_name} caption")
    sns.despine()
    grid.savefig(path, dpi=160)


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
