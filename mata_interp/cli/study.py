"""`mata-interp study`: the whole road in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .opening import Source, open_model
from .options import (
    WHENCE,
    AsJson,
    AudioRoot,
    BatchSize,
    Benchmark,
    Fields,
    ItemCount,
    Model,
    Seed,
    Subset,
    parse_chosen,
)
from .output import print_json, progress, resumable

__all__ = ["study"]

GivenLayers = Annotated[
    Any,
    typer.Option(
        parser=parse_chosen,
        metavar="RANGE|FILE|auto",
        help=f"{WHENCE} Only alpha is then chosen by the study; if not given, both are.",
    ),
]


def study(
    model: Model = "organism",
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    items: ItemCount = None,
    layers: GivenLayers = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/study-MODEL-BENCHMARK if not given.")
    ] = None,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    as_json: AsJson = False,
) -> None:
    """Does making the model attend to the audio help? Trace, choose, measure, test, report.

    Layers and alpha are chosen on one set of clips and tested on others, with controls. Stopped at any
    moment, the same command goes on from there.

    \b
    Examples
      mata-interp study
      mata-interp study --items 60 --out runs/quick
      mata-interp study --model Qwen/Qwen2-Audio-7B-Instruct --benchmark mmau.json
      mata-interp study --benchmark MMSU.jsonl --fields mmsu --audio-root sounds/
      mata-interp study --layers auto      in the layers that `mata-interp layers` finds
    """
    import mata_interp as mi

    from .fusing import layers_wanted

    out = out or Path("runs") / f"study-{Path(model).name}-{Path(benchmark).stem}"
    data, lalm = Source(benchmark, audio_root, fields, subset).open(), open_model(model)
    settings = {"items_limit": items, "batch_size": batch_size, "progress": progress(), "seed": seed}
    with resumable():
        run = mi.study(lalm, data, out, layers=layers_wanted(layers, lalm, lambda: data, seed), **settings)
    page = mi.report(out).resolve()
    assert run.study is not None  # mi.study has just written it
    if as_json:
        chosen = run.study.selection.chosen
        found = {"answer": run.study.answer, "primary": run.study.primary, "chosen": chosen, "report": page}
        print_json(found)
    else:
        print(f"{run.study.answer}\n\nThe page: {page.as_uri()}")
