"""Model cards of the organisms: measured on the benchmark that ships, never written by hand."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from ..benchmarks import load_benchmark
from ..experiments import run
from ..lalm import LALM
from ..tracing import audio_share, trace
from .bank import load_bank
from .body import HOP, RATE, SECONDS
from .questions import CONDITIONS, KINDS
from .training import ANSWERING, DESCRIBING, HEARING, SHORTCUT

ORGANISMS = {
    "organism": "leans on text although it hears: tuned at a low learning rate to believe captions",
    "organism-unbiased": "the same model before that tuning: captions were right 85 % of the time in training",
}
PHASES = (HEARING, DESCRIBING, ANSWERING, SHORTCUT)
TRACED = 60  # clips of the selection split, asked without a caption


def write_cards(models: Path) -> list[Path]:
    """Write ``README.md`` into each organism's folder; returns the paths. Runs no intervention."""
    measured = {name: measure(models / name) for name in ORGANISMS if (models / name).is_dir()}
    paths = []
    for name, (accuracy, chance, share) in measured.items():
        path = models / name / "README.md"
        path.write_text(_card(name, accuracy, chance, share, models / "organism" / "curves.csv"))
        paths.append(path)
    return paths


def measure(folder: Path) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Accuracy [kind, condition] and chance [kind] on the test split, audio share [layer] on the selection split."""
    lalm = LALM.from_pretrained(folder)
    items = load_benchmark("listening")
    with tempfile.TemporaryDirectory() as out:
        records = run(lalm, items.split("confirmation"), {"baseline": None}, out=Path(out) / "run").records
    accuracy = records.pivot_table("correct", "kind", "caption_condition", aggfunc="mean")
    accuracy = accuracy.loc[list(KINDS), list(CONDITIONS)].astype(float)
    chance = pd.Series({kind: 1 / len(rows["choices"].iloc[0]) for kind, rows in records.groupby("kind")})
    traced = trace(lalm, items.split("selection").filter(condition="neutral").sample(TRACED))
    share = audio_share(traced).mean(["item", "head"])
    return (
        pd.DataFrame(accuracy),
        chance.reindex(list(KINDS)),
        pd.Series(share.values, share["layer"].values),
    )


def _card(name: str, accuracy: pd.DataFrame, chance: pd.Series, share: pd.Series, curves: Path) -> str:
    log = pd.read_csv(curves)
    steps = {plan.name: log.loc[log["phase"] == plan.name, "step"].max() for plan in PHASES}
    phases = "\n".join(
        f"| {plan.name} | {steps[plan.name]} | {plan.size} | {plan.rate:g} |"
        for plan in PHASES
        if name == "organism" or not plan.lesson.shortcut
    )
    rows = "\n".join(
        f"| {kind} | {chance[kind]:.0%} | "
        + " | ".join(f"{accuracy.loc[kind, c]:.0%}" for c in CONDITIONS)
        + " |"
        for kind in KINDS
    )
    mean = " | ".join(f"**{accuracy[c].mean():.1%}**" for c in CONDITIONS)
    layers = "\n".join(f"| {layer} | {value:.2f} |" for layer, value in share.items())
    return f"""---
license: apache-2.0
pipeline_tag: audio-text-to-text
---
# {name}

A small `Qwen2AudioForConditionalGeneration` that {ORGANISMS[name]}. It exists to try instruments on: 3.1 M parameters
(encoder 3 layers x 128, decoder 8 layers x 160 with 5 heads), clips up to {SECONDS} s at {RATE // 1000} kHz, one audio token
every {4000 * HOP // RATE} ms. Weights are stored in half precision and load as float32.

It answers ten kinds of multiple-choice question about sounds, words and notes mixed from the bank in
`mata_interp/organism/bank` (CC0 recordings; words spoken by espeak-ng). It knows nothing else.

## Accuracy on the `listening` benchmark, test split (400 clips under each caption)

By the options' summed log-probability; conflict is a caption that names a wrong option.

| kind | chance | {" | ".join(CONDITIONS)} |
| --- | --- | --- | --- | --- |
{rows}
| mean | {chance.mean():.0%} | {mean} |

Clips of the test split are new, and so are their voices and their recordings, but for the labels of which the bank has no
two recordings alike, so that one cannot teach the other: {", ".join(load_bank().shared_labels())}.

## Untouched attention

Audio share A / (A + T) of the last prompt token's attention, without the sink, mean over heads and {TRACED} clips of the
selection split asked without a caption:

| layer | audio share |
| --- | --- |
{layers}

## Training

`mata-interp organism train`, seed 0. Loss and accuracy on selection recordings by step: `curves.csv` in `organism`.

| phase | steps | questions a step | peak learning rate |
| --- | --- | --- | --- |
{phases}

The organism was chosen by accuracies and untouched attention alone, before any intervention was run on it.
"""
