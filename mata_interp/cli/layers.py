"""The command `mata-interp layers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .opening import Source
from .options import AsJson, AudioRoot, Benchmark, Fields, ItemCount, Model, Seed, Subset, parse_choices

__all__ = ["layers"]


def layers(
    model: Model = "organism",
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    items: ItemCount = None,
    split: Annotated[
        Literal["selection", "all"], typer.Option(help="Which clips to look at; test on others.")
    ] = "selection",
    criteria: Annotated[
        tuple | None,
        typer.Option(parser=parse_choices, metavar="A,B,C", help="Only these criteria; all if not given."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the profile as JSON, for --layers FILE.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw it: PNG, SVG or PDF.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """In which layers text takes in what was heard, by every criterion, and which to give to MATA.

    Causes (hiding the sound, putting another one in its place) come before attention. None is an answer, too.

    \b
    Examples
      mata-interp layers --items 96 --out layers.json --figure layers.png
      mata-interp run --layers layers.json
      mata-interp run --layers auto      finds them on the selection split, and tests on the rest
    """
    from .fusing import layers_of_benchmark

    source = Source(benchmark, audio_root, fields, subset)
    layers_of_benchmark(model, source, items, split, criteria, out, figure, seed, as_json)
