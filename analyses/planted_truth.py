"""Do the criteria find fusion layers that are known? Every criterion against every plant.

A plant is an organism trained to read the sound in chosen layers only (mata_interp.organism.planting): either
all other layers attend over a window too short to reach it, or attention to it cost loss there. What is true
of a plant is not taken on trust: in a plain loop, one layer after the other is made blind to the sound for
all text, in the attention mask, and the layers whose blindness costs the margin are the truth, which must be
those that were planted. Criteria then see other clips. Plants by window show in the masks, so they are
reported apart from those by penalty, which must be inferred.

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
    Plant((1,), "window"),
    Plant((3, 4), "window"),
    Plant((2, 3, 4, 5), "window"),
    Plant((1, 2)),
    Plant((3, 4)),
    Plant((6,)),
    Plant((2, 3, 4, 5)),
    Plant((1, 5, 6)),
    Plant((3,), decoys=(5, 6)),
    Plant(()),
)
MATTERS = 0.1  # a layer matters if its blindness costs so much of what blindness of all layers costs


def main(
    work: Annotated[Path, typer.Option(help="Where plants are trained and kept.")] = Path("runs/plants"),
    plants: Annotated[str, typer.Option(help="Which of the plants, by number from 0: 0-3,9.")] = "0-9",
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
    draw(found, work / "planted_truth.png")
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


def summary(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean IoU of every criterion over the plants of each way."""
    means: Any = table.pivot_table("iou", "criterion", "way")
    return {str(way): {str(k): float(v) for k, v in means[way].dropna().items()} for way in means}


def draw(found: dict[str, Any], path: Path) -> None:
    """A row a plant: what blindness costs, planted layers shaded, the recommended window underlined."""
    sns.set_theme(style="ticks", context="paper")
    size = (4.6, 0.3 + 0.85 * len(found))
    figure, axes = plt.subplots(len(found), 1, figsize=size, sharex=True, squeeze=False)
    for axis, (name, (spec, cost, profile)) in zip(axes[:, 0], found.items(), strict=True):
        layers = np.arange(len(cost))
        axis.bar(layers, cost, color="0.35", width=0.6)
        for layer in spec.fusion:
            axis.axvspan(layer - 0.5, layer + 0.5, color="#cfe3f3", zorder=0, linewidth=0)
        for layer in spec.decoys:
            axis.axvspan(layer - 0.5, layer + 0.5, color="#f6e3c5", zorder=0, linewidth=0)
        for layer in profile.window:
            axis.plot(
                [layer - 0.42, layer + 0.42], [-0.08, -0.08], color="#c23b22", linewidth=3, clip_on=False
            )
        axis.set(ylim=(-0.15, max(1.0, cost.max()) * 1.08), yticks=[0, 1], xticks=layers)
        axis.text(1.01, 0.5, name, transform=axis.transAxes, va="center")
    axes[-1, 0].set_xlabel("decoder layer")
    figure.supylabel("cost of blindness (fraction of that of all layers)", fontsize="small")
    figure.text(
        0.5, 1.0, "blue: planted   ochre: decoys   red: recommended window", ha="center", fontsize="small"
    )
    sns.despine()
    figure.tight_layout()
    figure.savefig(path, dpi=160, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
