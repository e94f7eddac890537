"""`mata-interp study`: the whole analysis in one command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from ...load_options import LoadOptions
from ..checks import check_loading, check_out_folder
from ..inputs import Source, load_model, model_name, read_layers, resolve_layers
from ..options import (
    AS_STORED,
    BATCH_SIZE,
    AsJson,
    AudioRoot,
    BatchSize,
    Benchmark,
    Fields,
    ItemCount,
    Layers,
    Model,
    ModelArgument,
    Seed,
    Subset,
    out_option,
    with_load_options,
)
from ..output import print_result, progress, resumable


@with_load_options
def study(  # noqa: PLR0913 a command has one parameter per option
    model: ModelArgument = None,
    model_option: Model = None,
    loading: LoadOptions = AS_STORED,
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    items: ItemCount = None,
    layers: Layers = None,
    out: Annotated[Path | None, out_option("Run folder. Default: runs/study-MODEL-BENCHMARK.")] = None,
    seed: Seed = 0,
    batch_size: BatchSize = BATCH_SIZE,
    as_json: AsJson = False,
) -> None:
    """Test whether MATA helps a model on a benchmark: choose, measure, test and report.

    Layers and alpha are chosen on the clips of one split and tested on those of the other, beside controls.
    With --layers only alpha is chosen. Runs are resumable: run the same command again to continue.

    \b
    Examples
      mata-interp study
      mata-interp study --items 60 --out runs/quick
      mata-interp study Qwen/Qwen2-Audio-7B-Instruct --benchmark mmau-test-mini.json
      mata-interp study --benchmark MMSU.jsonl --fields mmsu --audio-root audio/
      mata-interp study --layers auto      use the layers that `mata-interp layers` finds
    """
    name = model_name(model, model_option)
    check_loading(name, loading)
    source = Source(benchmark, audio_root, fields, subset)
    out = out or Path("runs") / f"study-{Path(name).name}-{source.stem}"
    check_out_folder(out)
    wanted = read_layers(layers)
    data, lalm = source.usable(), load_model(name, loading)
    import mata_interp

    settings = {"items_limit": items, "batch_size": batch_size, "progress": progress(), "seed": seed}
    with resumable():
        chosen_layers = resolve_layers(wanted, lalm, lambda: data, seed)
        run = mata_interp.study(lalm, data, out, layers=chosen_layers, **settings)
    page = mata_interp.report(out).resolve()
    result = run.study
    assert result is not None
    if as_json:
        chosen, primary = asdict(result.selection.chosen), result.primary.to_dict()
        print_result("study", {"answer": result.answer, "primary": primary, "chosen": chosen, "report": page})
    else:
        print(f"{result.answer}\n\nThe report: {page.as_uri()}")
