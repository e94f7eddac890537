"""Model cards of the organisms, generated from measurements on the benchmark that ships."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..benchmarks import load_benchmark
from ..experiments import run
from ..lalm import LALM
from ..tracing import audio_share, trace
from .architecture import HOP, SECONDS
from .bank import RATE, load_bank
from .questions import CONDITIONS, KINDS
from .training import ANSWERING, DESCRIBING, ENCODER, SHORTCUT

SUMMARIES = {
    "organism": "It over-relies on captions although its audio encoder is accurate: after training, it was tuned "
    "at a low learning rate to answer what a caption claims.",
    "organism-unbiased": "It is the model that `organism` was tuned from: half of its training questions had a "
    "caption, 80 % of these captions were right, and the target was the right option in every case.",
}
PHASES = (ENCODER, DESCRIBING, ANSWERING, SHORTCUT)
TRACED = 60  # clips of the selection split, without a caption


@dataclass(frozen=True)
class Measurements:
    """Numbers of a model card.

    Attributes:
        accuracy: ``[kind, condition]`` on the confirmation split.
        chance: ``[kind]``, 1 / number of options.
        audio_share: ``[layer]``, on the selection split.
    """

    accuracy: pd.DataFrame
    chance: pd.Series
    audio_share: pd.Series


def write_cards(models: Path) -> list[Path]:
    """Measure each organism in ``models`` and write its ``README.md``. No intervention is run.

    Returns:
        Paths of the files.
    """
    paths = []
    for name in SUMMARIES:
        folder = models / name
        if folder.is_dir():
            path = folder / "README.md"
            path.write_text(card_text(name, measure(folder), models / "organism" / "curves.csv"))
            paths.append(path)
    return paths


def measure(folder: Path) -> Measurements:
    """Measure an organism: accuracy on the confirmation split, attention on the selection split."""
    lalm = LALM.from_pretrained(folder)
    items = load_benchmark("listening")
    with tempfile.TemporaryDirectory() as out:
        records = run(lalm, items.split("confirmation"), {"baseline": None}, out=Path(out) / "run").records
    accuracy = records.pivot_table("correct", "kind", "caption_condition", aggfunc="mean")
    accuracy = accuracy.loc[list(KINDS), list(CONDITIONS)].astype(float)
    chance = pd.Series({kind: 1 / len(rows["choices"].iloc[0]) for kind, rows in records.groupby("kind")})
    traced = trace(lalm, items.split("selection").filter(condition="neutral").sample(TRACED))
    share = audio_share(traced).mean(["item", "head"])
    return Measurements(
        pd.DataFrame(accuracy),
        chance.reindex(list(KINDS)),
        pd.Series(share.values, share["layer"].values),
    )


def card_text(name: str, measured: Measurements, curves: Path) -> str:
    """The model card of an organism, Markdown.

    Args:
        name: a key of ``SUMMARIES``.
        measured: its numbers.
        curves: ``curves.csv`` of the training, for the number of steps of each phase.
    """
    log = pd.read_csv(curves)
    phases = []
    for phase in PHASES:
        if name == "organism" or phase is not SHORTCUT:
            steps = log.loc[log["phase"] == phase.name, "step"].max()
            phases.append(f"| {phase.name} | {steps} | {phase.batch_size} | {phase.learning_rate:g} |")
    kinds = []
    for kind in KINDS:
        cells = [f"{measured.accuracy.loc[kind, condition]:.0%}" for condition in CONDITIONS]
        kinds.append(f"| {kind} | {measured.chance[kind]:.0%} | {' | '.join(cells)} |")
    mean = " | ".join(f"**{measured.accuracy[condition].mean():.1%}**" for condition in CONDITIONS)
    layers = [f"| {layer} | {value:.2f} |" for layer, value in measured.audio_share.items()]
    kind_rows, layer_rows, phase_rows = ("\n".join(rows) for rows in (kinds, layers, phases))
    return f"""---
license: apache-2.0
pipeline_tag: audio-text-to-text
---
# {name}

A small `Qwen2AudioForConditionalGeneration` for trying out interpretability methods. {SUMMARIES[name]}

It has 3.1 M parameters (encoder 3 layers x 128, decoder 8 layers x 160 with 5 heads), takes clips of up to
{SECONDS} s at {RATE // 1000} kHz, and has one audio token for every {4000 * HOP // RATE} ms. Weights are stored in half precision and load as
float32.

It answers ten kinds of multiple-choice question about sounds, words and notes mixed from the bank in
`mata_interp/organism/bank` (CC0 recordings; words spoken by espeak-ng), and nothing else.

## Accuracy on the `listening` benchmark, confirmation split (400 clips under each caption condition)

The answer is the option with the largest summed log-probability. A congruent caption names the right option, a
conflict caption a wrong one.

| kind | chance | {" | ".join(CONDITIONS)} |
| --- | --- | --- | --- | --- |
{kind_rows}
| mean | {measured.chance.mean():.0%} | {mean} |

Clips, voices and recordings of the confirmation split do not occur in training, except for recordings of labels
of which no two recordings in the bank sound alike: {", ".join(load_bank().shared_labels())}.

## Attention without intervention

Audio share A / (A + T) of the last prompt token's attention, the attention sink excluded, mean over heads and over
{TRACED} clips of the selection split without a caption:

| layer | audio share |
| --- | --- |
{layer_rows}

## Training

`mata-interp organism train`, seed 0. `curves.csv` in the folder of `organism` has losses and accuracies on
selection recordings by step.

| phase | steps | batch size | peak learning rate |
| --- | --- | --- | --- |
{phase_rows}

The organism was selected by accuracy and by attention without intervention alone, before any intervention was run
on it.
"""
