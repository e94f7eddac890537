"""`mata-interp trace`: attention to audio, layer by layer."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...defaults import MAX_NEW_TOKENS
from ...load_options import LoadOptions
from ..checks import check_cluster_options, check_loading, check_needs, check_out_file, check_prompt
from ..edits import (
    NO_EDIT,
    EditOptions,
    check_edit_options,
    check_single_edit,
    make_edits,
    with_edit_options,
)
from ..inputs import AutoLayers, Source, load_model, model_name, resolve_layers, take
from ..options import (
    AS_STORED,
    BATCH_SIZE,
    NO_CLUSTER,
    AsJson,
    AudioRoot,
    BatchSize,
    Benchmark,
    ClusterOptions,
    DryRun,
    Fields,
    ItemCount,
    MaxNewTokens,
    Model,
    ModelArgument,
    PromptFormat,
    Seed,
    Split,
    Subset,
    out_option,
    with_cluster_options,
    with_load_options,
)
from ..output import print_forecast, print_result, print_table, resumable

if TYPE_CHECKING:
    import xarray as xr

    from ...benchmarks import Items
    from ...lalm import LALM

QUERIES = {
    "last": "the last prompt token",
    "text": "mean over the text tokens after the audio",
    "generated": "mean over the tokens that predict the answer",
}


@with_load_options
@with_edit_options()
@with_cluster_options
def trace(  # noqa: PLR0913 a command has one parameter per option
    model: ModelArgument = None,
    model_option: Model = None,
    loading: LoadOptions = AS_STORED,
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    split: Split = None,
    items: ItemCount = None,
    edit: EditOptions = NO_EDIT,
    query: Annotated[
        Literal["last", "text", "generated"],
        typer.Option(
            help="Tokens whose attention is measured: last (the last prompt token), text (all text after the "
            "audio) or generated (the tokens that predict a generated answer)."
        ),
    ] = "last",
    prompt: PromptFormat = None,
    max_new_tokens: MaxNewTokens = None,
    out: Annotated[Path | None, out_option("Write the whole trace to this netCDF file.", "FILE")] = None,
    seed: Seed = 0,
    batch_size: BatchSize = BATCH_SIZE,
    dry_run: DryRun = False,
    cluster: ClusterOptions = NO_CLUSTER,
    as_json: AsJson = False,
) -> None:
    """Measure the share of attention that audio gets from the last prompt token, layer by layer.

    With --method, --alpha or --rule the model is traced under that edit, and the shares of edited tokens are
    those after the edit. With --out a trace is resumable: run the same command again to continue.

    \b
    Examples
      mata-interp trace --items 100
      mata-interp trace --query text       mean over the tokens of question, options and template
      mata-interp trace --alpha 1 --layers 4-7
      mata-interp trace --method InstABoost --set factor=2 --layers 4-7
      mata-interp trace --out trace.nc     read it with xarray.open_dataset("trace.nc", engine="scipy")
    """
    options = _check_edit(edit)
    check_out_file(out)
    check_prompt(prompt)
    check_cluster_options(cluster)
    check_needs({"--max-new-tokens": max_new_tokens}, "--query generated", query == "generated")
    name, source = model_name(model, model_option), Source(benchmark, audio_root, fields, subset)
    check_loading(name, loading)
    split = split or "all"
    data = take(whole := source.usable(), split, items, seed)
    lalm = load_model(name, loading)
    auto = AutoLayers(lambda: whole, seed, prompt or "options", None, cluster.ray, dry_run)
    applied = _edit(lalm, options, auto)

    from ...experiments.planning import StageSettings
    from ...experiments.stage_forecast import forecast_trace
    from ...experiments.validation import validate_items
    from ...interventions import describe, record_of
    from ...progress import announce
    from ...tracing import trace as trace_items

    tokens, prompt_format = max_new_tokens or MAX_NEW_TOKENS, prompt or "options"
    valid_items = validate_items(lalm, data, format=prompt_format)
    stage = StageSettings(batch_size, prompt_format=prompt_format)
    forecast = forecast_trace(lalm, valid_items, stage, query, tokens, out, applied)
    if dry_run:
        print_forecast("trace --dry-run", forecast, out, as_json)
        return
    announce(str(forecast))
    with resumable() if out else nullcontext():
        traced = trace_items(
            lalm,
            data := valid_items.as_items(),
            query=query,
            max_new_tokens=tokens,
            batch_size=batch_size,
            intervention=applied,
            prompt_format=prompt_format,
            out=out,
            ray=cluster.ray,
        )
    measures = _by_layer(traced)
    if as_json:
        values = _values(traced, measures, data, split, query, out)
        print_result("trace", values | {"intervention": None if applied is None else record_of(applied)})
    else:
        _print(traced, measures, lalm, data, query, "" if applied is None else f" under {describe(applied)}")
        if out:
            print(f"The trace: {out}")


def _check_edit(options: EditOptions) -> EditOptions:
    """The checked options; those that describe no edit are refused."""
    options = check_edit_options(options)
    check_single_edit(options)
    of_edit = {
        "--layers": options.layers,
        "--heads": options.heads,
        "--keys": options.keys,
        "--queries": options.queries,
        "--phase": options.phase,
    }
    there = any(value is not None for value in (options.method, options.alpha, options.rule))
    check_needs(of_edit, "--method, --alpha or --rule", there)
    return options


def _edit(lalm: LALM, options: EditOptions, auto: AutoLayers) -> Any:
    """The edit under which the model is traced; None without one."""
    if not options.edited:
        return None
    (edit,) = make_edits(lalm, resolve_layers(options.layers, lalm, auto), options).values()
    return edit


def _by_layer(traced: xr.Dataset) -> dict[str, Any]:
    """Mean over items of each measure, [layer]."""
    from ...tracing import aei, audio_share, mdi

    return {
        "audio_share": audio_share(traced).mean(("item", "head"), skipna=True).values,
        "mdi": mdi(traced).mean("item", skipna=True).values,
        "aei": aei(traced).mean("item", skipna=True).values,
    }


def _values(
    traced: xr.Dataset, measures: dict[str, Any], data: Items, split: str, query: str, out: Path | None
) -> dict[str, Any]:
    from dataclasses import asdict

    masses = traced["mass"].mean(("item", "head"), skipna=True)
    return {
        "items": len(data),
        "split": split,
        "query": query,
        "queries": int(traced["n_queries"].sum()),
        "layer": traced["layer"].values,
        **measures,
        "mass": {str(group): masses.sel(group=group).values for group in traced["group"].values},
        "excluded": [asdict(exclusion) for exclusion in data.excluded],
        "out": out,
    }


def _print(
    traced: xr.Dataset, measures: dict[str, Any], lalm: LALM, data: Items, query: str, edit: str
) -> None:
    from ...reporting.terminal import bar
    from ...reporting.wording import count, number, percent, printable

    rows = []
    for row, layer in enumerate(traced["layer"].values):
        share, mdi, aei = (float(measures[name][row]) for name in ("audio_share", "mdi", "aei"))
        rows.append([f"{layer:>5}  {bar(share)}", percent(share), number(mdi), number(aei)])
    size = count(len(data), "item")
    print(f"{printable(lalm.name)}{edit} on {printable(data.name)}, {size}: {QUERIES[query]}\n")
    print_table(["layer", "audio share", "MDI", "AEI"], rows)
    print(
        "\naudio share: attention to audio / (audio + text), without the first token. MDI (modality "
        "dominance index) and AEI (attention efficiency index): arXiv 2508.10552."
    )
