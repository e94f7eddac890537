"""What do the instruments find on a pretrained decoder? Builds a small audio-language model for that.

SmolLM2-135M-Instruct (30 layers) as the decoder and Whisper base's encoder make a stock
`Qwen2AudioForConditionalGeneration`. Both come from wheels of the Python package index, pinned by SHA-256.
The projector between them is aligned with the decoder's embeddings, and changes of rank 4 to its attention
matrices from layer 10 on are trained, without captions. They ship (0.9 MB), or `--train` trains them again.
FOLDER is the model: every command of mata-interp takes it. FOLDER/benchmark holds 80 clips for selection and
240 held-out ones of spoken words and sounds, in MMAU's format, each without a caption, with a true one and
with a false one.

With the shipped weights (340 steps of 8 lessons) it answers 77 % of the 240 held-out clips correctly without
a caption (95 % interval 71 to 82 %), and 22 % (17 to 27 %) without the audio; chance is 25 %. `--evaluate`
measures that, and the effect of captions.

The same command continues a build that was stopped. It needs 2 GB of disk, 250 MB of downloads, the program
espeak-ng and the package gguf (extra `assembled`).

\b
Examples
  python analyses/assembled_model.py --out runs/assembled
  python analyses/assembled_model.py --out runs/assembled --evaluate
  mata-interp trace runs/assembled --benchmark runs/assembled/benchmark/assembled.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from support.assembled.benchmark import FILE
from support.assembled.build import Build
from support.assembled.evaluation import evaluate
from support.assembled.training import Plan

from mata_interp.errors import MataError


def main(
    out: Annotated[Path, typer.Option(help="Folder of model and benchmark.")] = Path("runs/assembled"),
    train: Annotated[
        bool,
        typer.Option(
            "--train", help="Train the weights (about half an hour on one core) instead of loading them."
        ),
    ] = False,
    steps: Annotated[int, typer.Option(help="Number of training steps (with --train).", min=1)] = Plan.steps,
    seed: Annotated[int, typer.Option(help="Seed of clips, questions and training.", min=0)] = 0,
    evaluate_: Annotated[
        bool,
        typer.Option("--evaluate", help="Measure accuracy on the held-out clips, with and without audio."),
    ] = False,
) -> None:
    """Build model and benchmark; print where they are, and with --evaluate how accurate the model is."""
    build = Build(out, seed)
    try:
        build.run(Plan(steps=steps) if train else None)
        benchmark = build.benchmark / FILE
        print(f"model      {out}\nbenchmark  {benchmark}")
        if evaluate_:
            print(evaluate(out, benchmark, out / "build" / "evaluation", seed).to_string(index=False))
    except MataError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(help=__doc__)(main)
    app()
