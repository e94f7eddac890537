"""``mata-interp organism``: how the model and the benchmark that ship were made, to be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Make again what ships: the bank of recordings, the listening benchmark, the model.",
    no_args_is_help=True,
)


@app.command()
def train(
    work: Annotated[
        Path, typer.Option(help="Checkpoints and curves; the same command goes on from here.")
    ] = Path("runs/organism-training"),
    out: Annotated[Path | None, typer.Option(help="Where the models go [default: WORK/models].")] = None,
    seed: Annotated[int, typer.Option(help="Of the initial weights and of every batch.")] = 0,
    share: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="Share of the planned steps, to try it.")
    ] = 1.0,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 2,
) -> None:
    """Train organism-unbiased and organism from nothing: hours on a processor; it shows the time left.

    Example: mata-interp organism train --share 0.01   (half a minute, learns nothing)
    """
    import torch

    from .rearing import rear

    torch.set_num_threads(threads)
    out = out or work / "models"
    rear(work, out, seed, share)
    typer.echo(
        f"The models are {out / 'organism-unbiased'} and {out / 'organism'}; curves: {work / 'curves.csv'}"
    )


@app.command()
def bank(out: Annotated[Path, typer.Argument(help="The folder to write.")]) -> None:
    """Build the bank of recordings from Debian's sonic-pi-samples and espeak-ng."""
    from .bank_sources import build_bank

    typer.echo(f"{build_bank(out)} recordings in {out}")


@app.command()
def benchmark(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    seed: Annotated[
        int | None, typer.Option(help="Another seed than that of the benchmark that ships.")
    ] = None,
) -> None:
    """Build the listening benchmark: clips, questions, captions."""
    from .bank import load_bank
    from .listening import SEED, build_listening

    typer.echo(f"{build_listening(out, load_bank(), seed=SEED if seed is None else seed)} questions in {out}")


@app.command()
def card(
    models: Annotated[
        Path | None, typer.Option(help="Folder of both models [default: those that ship].")
    ] = None,
) -> None:
    """Measure both organisms on the listening benchmark and write their model cards (README.md)."""
    from . import WEIGHTS
    from .card import write_cards

    for path in write_cards(models or WEIGHTS):
        typer.echo(str(path))
