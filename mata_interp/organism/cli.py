"""``mata-interp organism``: how the model and the benchmark that ship were made, to be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..ranges import layers_in

app = typer.Typer(
    help="Make again what ships: the bank of recordings, the listening benchmark, the model.",
    no_args_is_help=True,
)


def parse_fusion_layers(text: str) -> tuple[int, ...]:
    """Layers as everywhere on the command line, or none."""
    try:
        return () if text == "none" else layers_in(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _plant(
    fusion: tuple[int, ...],
    way: str,
    decoys: tuple[int, ...],
    work: Path,
    out: Path | None,
    seed: int,
    share: float,
) -> None:
    from .planting import Plant, rear_plant

    try:
        spec = Plant(fusion, way, decoys)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    work, out = work / spec.name, out or work / "models" / spec.name
    found = rear_plant(spec, work, out, seed, share)
    told = ", ".join(f"{name} {value:.0%}" for name, value in found.items())
    typer.echo(f"The plant is {out}; right answers on selection recordings: {told}")


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
    fusion_layers: Annotated[
        tuple | None,
        typer.Option(
            parser=parse_fusion_layers,
            metavar="RANGE|none",
            help="Plant instead: text reads the sound in these layers only (2-3 or 1,5-6), or in none.",
        ),
    ] = None,
    way: Annotated[
        str, typer.Option(help="Of planting: penalty, or window (shows in the masks).")
    ] = "penalty",
    decoys: Annotated[
        tuple | None,
        typer.Option(
            parser=parse_fusion_layers,
            metavar="RANGE",
            help="Layers of a plant that attend to the sound strongly and for nothing.",
        ),
    ] = None,
) -> None:
    """Train organism-unbiased and organism from nothing: hours on a processor; it shows the time left.

    With --fusion-layers, train a plant from organism-unbiased in minutes: a model whose fusion layers are
    known, to try on it what claims to find them.

    \b
    Examples
      mata-interp organism train --share 0.01              half a minute, learns nothing
      mata-interp organism train --fusion-layers 2-3       reads the sound in layers 2 and 3 only
    """
    import torch

    torch.set_num_threads(threads)
    if fusion_layers is not None:
        _plant(fusion_layers, way, decoys or (), work, out, seed, share)
        return
    from .train_organism import rear

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
    from .build_benchmark import SEED, build_listening

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
