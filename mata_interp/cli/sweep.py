"""`mata-interp sweep`: its options; what it does is in `sweeping`, which is loaded when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .opening import Source
from .options import (
    AsJson,
    AudioRoot,
    BatchSize,
    Benchmark,
    Fields,
    ItemCount,
    Model,
    Phase,
    Seed,
    Subset,
    parse_layers,
    parse_rule,
)

__all__ = ["sweep"]


def parse_alphas(text: str) -> tuple[float, ...]:
    """``0.5,1,2`` -> ``(0.5, 1.0, 2.0)``."""
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 0.5,1,2.") from None


LayerSets = Annotated[
    str,
    typer.Option(
        metavar="windows|each|heads|SETS|FILE|auto",
        help="Every window of neighbouring layers, each layer alone, each head alone, or sets: 3-5;2,7; "
        "a file that `mata-interp layers` wrote; or auto: as it finds them.",
    ),
]
Widths = Annotated[
    tuple | None,
    typer.Option(
        parser=parse_layers,
        metavar="RANGE",
        help="Of windows: how many layers, such as 1-4; up to half the model if not given.",
    ),
]
Alphas = Annotated[
    tuple | None,
    typer.Option(
        parser=parse_alphas,
        metavar="LIST",
        help="Strengths; 0.1,0.25,0.5,1,2 if not given, 1 for layers and heads alone.",
    ),
]
SweptRule = Annotated[
    str | None,
    typer.Option(
        parser=parse_rule,
        metavar="RULE",
        help="How scores change: abs, mul, add, knockout or another registered rule; knockout for layers and "
        "heads alone if not given, else abs.",
    ),
]
Keys = Annotated[
    str, typer.Option(help="The tokens whose scores are edited: audio, text, caption, sink, ...")
]
Queries = Annotated[
    Literal["last", "text"],
    typer.Option(help="Whose attention: the last prompt token's, or that of all text after the audio."),
]
Heads = Annotated[
    tuple | None,
    typer.Option(
        parser=parse_layers, metavar="RANGE", help="Only these heads of each layer; all if not given."
    ),
]
GridFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Edits from a JSON or TOML file instead: name -> alpha, layers, rule, ..."
    ),
]
SplitName = Annotated[
    Literal["selection", "confirmation", "all"], typer.Option(help="Which clips; maps are for exploring.")
]


def sweep(
    model: Model = "organism",
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    items: ItemCount = None,
    split: SplitName = "selection",
    layers: LayerSets = "windows",
    widths: Widths = None,
    alpha: Alphas = None,
    rule: SweptRule = None,
    keys: Keys = "audio",
    queries: Queries = "last",
    phase: Phase = "both",
    heads: Heads = None,
    grid: GridFile = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; runs/sweep-MODEL-BENCHMARK-KIND if not given.")
    ] = None,
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    as_json: AsJson = False,
) -> None:
    """Where does an edit of attention move the answer? Thousands of edits for little more than one forward.

    Writes the margins of all items under all edits (sweep.nc, netCDF), the map of their mean change (map.nc)
    and its figure (map.png, map.svg); tells the largest gains and losses. Maps are for exploring, so they are
    made on the selection split: what they suggest is tested on other clips by study or run.

    \b
    Examples
      mata-interp sweep                                  every window of layers, five alphas, rule abs
      mata-interp sweep --layers each                    audio knocked out of each layer
      mata-interp sweep --layers heads --items 50        ... of each head
      mata-interp sweep --layers heads --rule abs --alpha 1     each head boosted
      mata-interp sweep --layers "1-3;4-6" --alpha 0.5,1,2 --keys text
      mata-interp sweep --layers each --queries text     audio hidden from all text after it
      mata-interp sweep --grid mine.toml     where mine.toml says, for each edit:
        [early]
        alpha = 1.0
        layers = "1-3"
    """
    from .sweeping import sweep_benchmark

    kind = grid.stem if grid else layers if layers in ("windows", "each", "heads") else "sets"
    out = out or Path("runs") / f"sweep-{Path(model).name}-{Path(benchmark).stem}-{kind}"
    settings = {"keys": keys, "queries": queries, "phase": phase, **({"heads": heads} if heads else {})}
    options = {"layers": layers, "widths": widths, "alphas": alpha, "rule": rule, "settings": settings}
    source = Source(benchmark, audio_root, fields, subset)
    sweep_benchmark(model, source, items, split, grid, options, out, seed, batch_size, as_json)
