"""``mata-interp organism``: rebuild the model and the benchmark that ship, and train planted models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..ranges import layers_in

app = typer.Typer(
    help="Rebuild the shipped model, benchmark and bank of recordings, and train planted models.",
    no_args_is_help=True,
)

Seed = Annotated[int, typer.Option(min=0, help="Random seed of the initial weights and of every batch.")]
Share = Annotated[
    float, typer.Option(min=0.001, max=1.0, help="Share of the planned training steps; below 1 for a trial.")
]
Threads = Annotated[int, typer.Option(min=1, help="Number of CPU threads.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder that the trained models are written to [default: WORK/models].")
]


def parse_planted_layers(text: str) -> tuple[int, ...]:
    """Decoder layers as everywhere on the command line, or ``none``."""
    try:
        return () if text == "none" else layers_in(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def train(
    work: Annotated[Path, typer.Option(help="Folder of checkpoints and training curves.")] = Path(
        "runs/organism-training"
    ),
    out: Out = None,
    seed: Seed = 0,
    share: Share = 1.0,
    threads: Threads = 2,
) -> None:
    """Train organism-unbiased and organism from scratch. This takes hours on a CPU; a bar shows the time
    left.

    Training is resumable: run the same command again to continue.

    \b
    Examples
      mata-interp organism train
      mata-interp organism train --share 0.01     half a minute, to try the command; the model learns nothing
    """
    import torch

    from .train_organism import train_organism

    torch.set_num_threads(threads)
    work = work.expanduser()
    out = out.expanduser() if out else work / "models"
    train_organism(work, out, seed, share)
    typer.echo(f"Models: {out / 'organism-unbiased'} and {out / 'organism'}; curves: {work / 'curves.csv'}")


@app.command()
def train_planted(
    fusion_layers: Annotated[
        tuple,
        typer.Argument(
            parser=parse_planted_layers,
            metavar="LAYERS|none",
            help="Decoder layers in which text reads audio, such as 2-3 or 1,5-6; or none.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(help="penalty, or window (a sliding window in all other layers, visible in the masks)."),
    ] = "penalty",
    distractor_layers: Annotated[
        tuple | None,
        typer.Option(
            parser=parse_planted_layers,
            metavar="LAYERS",
            help="With --method penalty: layers that attend strongly to audio without using it.",
        ),
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Folder of checkpoints and curves; the model goes to WORK/models/NAME.")
    ] = Path("runs/planted-models"),
    seed: Seed = 0,
    share: Share = 1.0,
    threads: Threads = 2,
) -> None:
    """Train a planted model: organism-unbiased, trained further to read audio in known layers only.

    Planted models are ground truth for criteria that estimate fusion layers. Training takes minutes, and is
    resumable: run the same command again to continue.

    \b
    Examples
      mata-interp organism train-planted 2-3
      mata-interp organism train-planted 5 --distractor-layers 2-3
    """
    import torch

    from . import OrganismError
    from .planted_model import PlantedModelSpec, train_planted_model

    torch.set_num_threads(threads)
    try:
        spec = PlantedModelSpec(fusion_layers, method, distractor_layers or ())
    except OrganismError as error:
        raise typer.BadParameter(str(error)) from error
    work = work.expanduser()
    out = work / "models" / spec.name
    measured = train_planted_model(spec, work / spec.name, out, seed, share)
    accuracy = ", ".join(f"{condition} {value:.0%}" for condition, value in measured.items())
    typer.echo(f"Model: {out}. Accuracy on selection recordings: {accuracy}")


@app.command()
def train_planted_set(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of the planted models [default: all of the file].")
    ] = None,
    planted_set: Annotated[
        Path | None,
        typer.Option("--set", help="File of planted models [default: the set that ships]."),
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Folder of checkpoints and curves; models go to WORK/models/NAME.")
    ] = Path("runs/planted-set"),
    share: Share = 1.0,
    threads: Threads = 2,
) -> None:
    """Build deep planted models, listed in a file: train the shallow bases that are missing, and grow them.

    Training is resumable: run the same command again to continue. Finished models are not trained again.

    \b
    Examples
      mata-interp organism train-planted-set 30-narrow
      mata-interp organism train-planted-set --set my_models.json
    """
    import torch

    from . import OrganismError
    from .planted_body import PLANTED_SET
    from .planted_growth import read_planted_set

    torch.set_num_threads(threads)
    try:
        specs = read_planted_set(planted_set or PLANTED_SET)
    except OrganismError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from error
    if unknown := sorted({*(names or ())} - {*specs}):
        raise typer.BadParameter(f"There are no planted models {unknown}: choose from {sorted(specs)}.")
    from .train_planted_body import build_grown_model

    work = work.expanduser()
    for name in names or specs:
        out = work / "models" / name
        if (out / "config.json").exists():
            typer.echo(f"{name}: {out} exists")
            continue
        build_grown_model(specs[name], work, out, share)
        typer.echo(f"{name}: {out}")


@app.command()
def bank(out: Annotated[Path, typer.Argument(help="Folder to write.")]) -> None:
    """Build the bank of recordings from Debian's sonic-pi-samples and espeak-ng."""
    from .bank_sources import build_bank

    typer.echo(f"{build_bank(out.expanduser())} recordings in {out}")


@app.command()
def benchmark(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed [default: that of the shipped benchmark].")
    ] = None,
) -> None:
    """Build the listening benchmark: clips, questions and captions."""
    from .bank import load_bank
    from .build_benchmark import SEED, build_listening

    count = build_listening(out.expanduser(), load_bank(), seed=SEED if seed is None else seed)
    typer.echo(f"{count} questions in {out}")


@app.command()
def card(
    models: Annotated[
        Path | None, typer.Option(help="Folder of both models [default: the shipped models].")
    ] = None,
) -> None:
    """Measure both organisms on the listening benchmark and write their model cards (README.md)."""
    from . import WEIGHTS
    from .card import write_cards

    for path in write_cards(models.expanduser() if models else WEIGHTS):
        typer.echo(str(path))
