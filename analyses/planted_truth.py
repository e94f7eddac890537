"""Do the criteria find fusion layers that are known? Every criterion against every plant.

A plant is an organism trained to read the sound in chosen layers only (mata_interp.organism.planting): either
all other layers attend over a window too short to reach it, or attention to it cost loss there. What is true
of a plant is not taken on trust: in a plain loop, one layer after the other is made blind to the sound for
all text, in the attention mask, and the layers whose blindness costs the margin are the truth, which must be
those that were planted. Criteria then see other clips. Plants by window show in the masks, so they are
reported apart from those by penalty, which must be inferred. The rule for the recommended window was frozen
before any plant was made; one plant, TUNED, was looked at while the making of plants was worked on, and is
marked in the table.

    python analyses/planted_truth.py                 trains what is missing (minutes each), then measures
    python analyses/planted_truth.py --plants 2-3,5 --share 0.1 --items 20 --json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import typer

import mata_interp as mi
from mata_interp.fusion import FusionProfile
from mata_interp.lalm import Prompt
from mata_interp.organism.planting import Plant, rear_plant

mpl.use("Agg")

PLANTS = (
    Plant((3, 4), "window"),
    Plant((3, 4, 5), "window"),
    Plant((1,)),
    Plant((3, 4)),
    Plant((6,)),
    Plant((3, 4, 5)),
    Plant((3, 6)),
    Plant((3,), decoys=(5, 6)),
    Plant(()),
)
TUNED = "penalty-3-4"
MATTERS = 0.1  # a layer matters if its blindness costs so much of what blindness of all layers costs


def main(
    work: Annotated[Path, typer.Option(help="Where plants are trained and kept.")] = Path("runs/plants"),
    plants: Annotated[str, typer.Option(help="Which of the plants, by number from 0: 0-3,8.")] = "0-8",
    items: Annotated[
        int, typer.Option(help="Items the criteria see; the truth is found on as many others.")
    ] = 60,
    share: Annotated[float, typer.Option(help="Of the training steps, to try it.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of training, item choice and bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Train, find the truth, find the windows, compare, draw."""
    from mata_interp.cli.options import parse_layers

    chosen = [PLANTS[i] for i in parse_layers(plants)]
    neutral = mi.load_benchmark("listening").filter(condition="neutral")
    told = mi.load_benchmark("listening").filter(condition="congruent")
    rows, found = [], {}
    for spec in chosen:
        folder = work / "models" / spec.name
        if not (folder / "config.json").exists():
            rear_plant(spec, work / spec.name, folder, seed, share)
        lalm = mi.LALM.from_pretrained(folder)
        asked = neutral if spec.fusion else told  # a plant without fusion answers by captions alone
        unseen, seen = (
            asked.split(name, seed=seed).head(items, seed=seed) for name in ("confirmation", "selection")
        )
        cost, accuracy = blindness(lalm, unseen)
        profile = mi.fusion_layers(lalm, seen, seed=seed)
        found[spec.name] = (spec, cost, profile)
        rows += compare(spec, cost, accuracy, profile)
    table = pd.DataFrame(rows)
    work.mkdir(parents=True, exist_ok=True)
    table.to_csv(work / "planted_truth.csv", index=False)
    draw(found, table, work / "planted_truth.png")
    if as_json:
        print(json.dumps({"rows": rows, "summary": summary(table)}, indent=1))
        return
    print(table[table["criterion"] == "window"].drop(columns="criterion").to_string(index=False))
    print(f"\n{pd.DataFrame(summary(table)).to_string(float_format='%.2f')}")
    print(f"\nFigure: {work / 'planted_truth.png'}")


def blindness(lalm: mi.LALM, items: Any) -> tuple[np.ndarray, float]:
    """What blindness of each layer costs the margin, over what blindness of all costs; and accuracy.

    A plain loop: text's view of the sound is taken out of one layer's attention mask at a time. Where even
    blindness of all layers costs less than 0.1 nats, no layer matters and all fractions are 0.
    """
    batches = [items[i : i + 16] for i in range(0, len(items), 16)]
    margins = []
    for blind in [(), *((layer,) for layer in range(lalm.layers)), tuple(range(lalm.layers))]:
        each = []
        for batch in batches:
            prompt = lalm.prompt(batch)
            with blinded(lalm.model, prompt, blind):
                logp = lalm.score(prompt, [item.choices for item in batch]).logprob
            right = [item.choices.index(item.answer) for item in batch]
            rows = np.arange(len(batch))
            wrong = logp.copy()
            wrong[rows, right] = -np.inf
            each.append(logp[rows, right] - np.nanmax(wrong, 1))
        margins.append(np.concatenate(each))
    plain, *single, every = (margin.mean() for margin in margins)
    total = plain - every
    cost = (plain - np.array(single)) / total if total > 0.1 else np.zeros(lalm.layers)
    return cost, float((margins[0] > 0).mean())


@contextmanager
def blinded(model: Any, prompt: Prompt, layers: tuple[int, ...]) -> Iterator[None]:
    """Inside, no token after the first audio token sees audio in these layers, unless it is audio itself."""
    audio = prompt.groups["audio"]  # (B, P)
    text = ~audio & (audio.cumsum(1) > 0)

    def hook(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        mask, states = kwargs["attention_mask"], kwargs["hidden_states"]
        queries, past = states.shape[1], kwargs["past_key_values"].get_seq_length(module.layer_idx)
        length = past + queries
        if mask is None:
            mask = torch.ones(queries, length, dtype=torch.bool).tril(past)[None, None]
        # answer tokens come after the prompt, are text, and are no audio
        keys = torch.nn.functional.pad(audio, (0, length - audio.shape[1]))[:, -mask.shape[-1] :]
        asking = torch.nn.functional.pad(text, (0, length - text.shape[1]), value=True)[:, -queries:]
        hidden = asking[:, None, :, None] & keys[:, None, None, :]
        return args, {**kwargs, "attention_mask": mask & ~hidden}

    blocks = [model.get_decoder().layers[layer].self_attn for layer in layers]
    handles = [block.register_forward_pre_hook(hook, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def compare(spec: Plant, cost: np.ndarray, accuracy: float, profile: FusionProfile) -> list[dict[str, Any]]:
    """One row a criterion, the recommended window first."""
    true = tuple(int(layer) for layer in np.flatnonzero(cost >= MATTERS))
    rows = []
    for name, window in {"window": profile.window, **profile.windows}.items():
        rows.append(
            {
                "plant": spec.name,
                "way": spec.way,
                "tuned_on": spec.name == TUNED,
                "criterion": name,
                "accuracy": round(accuracy, 3),
                "planted": list(spec.fusion),
                "truth": list(true),
                "found": list(window),
                "iou": overlap(window, true),
                "boundary_error": boundary_error(window, true),
            }
        )
    return rows


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Intersection over union; 1 where both are empty."""
    union = set(a) | set(b)
    return len(set(a) & set(b)) / len(union) if union else 1.0


def boundary_error(found: tuple[int, ...], true: tuple[int, ...]) -> int | None:
    """By how many layers the worse of the outer boundaries is off; None where one of the two is empty."""
    if not found or not true:
        return None
    return max(abs(min(found) - min(true)), abs(max(found) - max(true)))


def summary(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Of every criterion: mean IoU over the plants of each way, and its worst boundary error, in layers."""
    rows = []
    part: Any
    for name, part in table.groupby("criterion", sort=False):
        by_way = {f"iou_{way}": float(each["iou"].mean()) for way, each in part.groupby("way")}
        worst = part["boundary_error"].dropna()
        rows.append(
            {
                "criterion": str(name),
                "iou": float(part["iou"].mean()),
                **by_way,
                "worst_boundary": int(worst.max()) if len(worst) else None,
                "plants_right": int((part["iou"] == 1).sum()),
                "plants": len(part),
            }
        )
    return sorted(rows, key=lambda row: (row["criterion"] != "window", -row["iou"]))


def draw(found: dict[str, Any], table: pd.DataFrame, path: Path) -> None:
    """Left, a row a plant: what blindness costs, and what was found. Right: how well, by criterion."""
    sns.set_theme(style="ticks", context="paper")
    height = max(4.8, 1.0 + 0.62 * len(found))
    figure, (bars, heat) = plt.subplots(1, 2, figsize=(11.5, height), width_ratios=[1, 1.3])
    figure.subplots_adjust(wspace=0.55)
    bars.set_axis_off()
    names = list(found)
    for row, (name, (spec, cost, profile)) in enumerate(found.items()):
        axis = bars.inset_axes((0.0, 1 - (row + 0.86) / len(found), 1.0, 0.72 / len(found)))
        layers = np.arange(len(cost))
        for shaded, colour in ((spec.fusion, "#cfe3f3"), (spec.decoys, "#f6e3c5")):
            for layer in shaded:
                axis.axvspan(layer - 0.5, layer + 0.5, color=colour, zorder=0, linewidth=0)
        axis.bar(layers, cost, color="0.35", width=0.6)
        for layer in profile.window:
            ends = [layer - 0.45, layer + 0.45]
            axis.plot(ends, [-0.09, -0.09], color="#c23b22", linewidth=2.5, clip_on=False)
        axis.set(ylim=(0, max(1.0, cost.max()) * 1.05), xlim=(-0.6, len(cost) - 0.4), yticks=[0, 1])
        axis.set_xticks(layers, layers if row + 1 == len(found) else [""] * len(layers))
        axis.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
        axis.tick_params(length=2)
        sns.despine(ax=axis)
        if row + 1 == len(found):
            axis.set_xlabel("decoder layer", labelpad=6)
    bars.set_title(
        "cost of one layer's blindness, of that of all\n"
        "blue: planted, ochre: decoys, red: recommended window",
        fontsize="small",
    )
    order = [row["criterion"] for row in summary(table)]
    grid = table.pivot_table("iou", "criterion", "plant").loc[order, names]
    grid.columns = [f"{name} *" if name == TUNED else name for name in grid.columns]
    grid.index = ["recommended window" if name == "window" else name for name in grid.index]
    sns.heatmap(
        grid,
        ax=heat,
        vmin=0,
        vmax=1,
        cmap="mako",
        annot=True,
        fmt=".1f",
        annot_kws={"size": 7},
        cbar_kws={"label": "intersection over union with the truth", "shrink": 0.6},
        linewidths=0.5,
        yticklabels=True,
    )
    heat.axhline(1, color="white", linewidth=4)
    heat.set(xlabel="", ylabel="")
    heat.tick_params(length=0)
    heat.set_title(f"every criterion on every plant (* {TUNED}: looked at before)", fontsize="small")
    figure.savefig(path, dpi=160, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
