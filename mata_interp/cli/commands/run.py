"""`mata-interp run`: a benchmark with and without MATA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...defaults import MAX_NEW_TOKENS
from ...load_options import LoadOptions
from ..checks import (
    check_cluster,
    check_edit,
    check_loading,
    check_needs,
    check_out_folder,
    check_prompt,
    usage_error,
)
from ..grids import check_grid_options, read_grid
from ..inputs import (
    LayersFile,
    Source,
    clusters_of,
    load_model,
    model_name,
    read_layers,
    resolve_layers,
    take,
)
from ..options import (
    AS_STORED,
    AUTO,
    BATCH_SIZE,
    DEFAULT_ALPHA,
    DEFAULT_RULE,
    THIS_CLUSTER,
    Alpha,
    AsJson,
    AudioRoot,
    BatchSize,
    Benchmark,
    Fields,
    Generate,
    GpusPerWorker,
    GridFile,
    Heads,
    ItemCount,
    Keys,
    Layers,
    MaxNewTokens,
    Model,
    ModelArgument,
    Phase,
    PromptFormat,
    Queries,
    Ray,
    Rule,
    RunOptions,
    Seed,
    Split,
    Subset,
    Temperature,
    TopP,
    Workers,
    out_option,
    with_load_options,
)
from ..output import print_note, print_result, print_table, progress, resumable

if TYPE_CHECKING:
    import pandas as pd

    from ...benchmarks import Items
    from ...lalm import LALM

BASELINE = "baseline"


@with_load_options
def run(  # noqa: PLR0913 a command has one parameter per option
    model: ModelArgument = None,
    model_option: Model = None,
    loading: LoadOptions = AS_STORED,
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    split: Split = None,
    items: ItemCount = None,
    layers: Layers = None,
    alpha: Alpha = None,
    rule: Rule = None,
    heads: Heads = None,
    keys: Keys = None,
    queries: Queries = None,
    phase: Phase = None,
    grid: GridFile = None,
    prompt: PromptFormat = None,
    generate: Generate = False,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    out: Annotated[Path | None, out_option("Run folder. Default: runs/MODEL-BENCHMARK.")] = None,
    seed: Seed = 0,
    batch_size: BatchSize = BATCH_SIZE,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Write nothing; print what would be done and the time it would take."),
    ] = False,
    ray: Ray = None,
    workers: Workers = None,
    gpus: GpusPerWorker = None,
    as_json: AsJson = False,
) -> None:
    """Answer a benchmark without an edit and with the one that you set; nothing is chosen for you.

    To have layers and alpha chosen on other clips, with controls, use study. Runs are resumable: run the same
    command again to continue. Several processes that run the same command share the work.

    \b
    Examples
      mata-interp run --alpha 1 --layers 4-7 --items 300
      mata-interp run --alpha 0.5,1,2 --layers auto
      mata-interp run --benchmark mine.jsonl --rule add --alpha 0.5 --out runs/add
      mata-interp run --generate --prompt r1-aqa --max-new-tokens 512
      mata-interp run --grid edits.toml      several edits; see `mata-interp sweep --help`
      mata-interp run --ray --workers 8
    """
    options = RunOptions(
        layers=read_layers(layers),
        alphas=alpha,
        rule=rule,
        heads=heads,
        keys=keys,
        queries=queries,
        phase=phase,
        grid=grid,
        prompt=prompt,
        generate=generate,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        batch_size=batch_size,
        ray=ray,
        workers=workers,
        gpus=gpus,
    )
    _check(options)
    name, source = model_name(model, model_option), Source(benchmark, audio_root, fields, subset)
    check_loading(name, loading)
    out = out or Path("runs") / f"{Path(name).name}-{source.stem}"
    check_out_folder(out)
    check_cluster(ray)
    edits = read_grid(grid) if grid else {}
    data, lalm = source.usable(), load_model(name, loading)

    chosen_layers = resolve_layers(options.layers, lalm, lambda: data, seed)
    split_name = split or _default_split(data, options.layers, seed)
    data = take(data, split_name, items, seed)
    conditions = {BASELINE: None, **(edits or _edits(lalm, chosen_layers, options))}
    settings = {
        "decoding": _decoding(options),
        "prompt_format": prompt or "options",
        "batch_size": batch_size,
        "progress": progress(),
        "seed": seed,
    }
    import mata_interp

    if dry_run:
        forecast = mata_interp.forecast(lalm, data, conditions, out, **settings)
        if as_json:
            print_result("run --dry-run", {**forecast.to_dict(), "out": out})
        else:
            print(f"{forecast}\nThe run folder: {out}")
        return
    with resumable():
        done = mata_interp.run(lalm, data, conditions, out, ray=_cluster(options), **settings)
    tables = _tables(done)
    rates, effects = _rates(tables, generate), _effects(tables, seed)
    if as_json:
        values = {"items": len(set(done.records["item"])), "split": split_name, "excluded": done.excluded}
        changes = {name: effect.to_dict() for name, effect in effects.items()}
        print_result("run", {**values, **rates, "effects": changes, "out": out})
    else:
        _print(tables, rates, effects, out)


# --------------------------------------------------------------------------------------------------- options
def _check(options: RunOptions) -> None:
    """Refuse values and combinations that make no sense, before a model is loaded."""
    check_edit(options.rule, options.keys, options.queries, options.phase)
    check_prompt(options.prompt)
    check_grid_options(
        options.grid,
        {
            "--layers": options.layers,
            "--alpha": options.alphas,
            "--rule": options.rule,
            "--heads": options.heads,
            "--keys": options.keys,
            "--queries": options.queries,
            "--phase": options.phase,
        },
    )
    sampling = {"--temperature": options.temperature, "--top-p": options.top_p}
    check_needs({"--max-new-tokens": options.max_new_tokens, **sampling}, "--generate", options.generate)
    check_needs({"--top-p": options.top_p}, "a --temperature above 0", bool(options.temperature))
    if options.top_p == 0:
        raise usage_error("it must be above 0.", "--top-p")
    cluster = {"--workers": options.workers, "--gpus-per-worker": options.gpus}
    check_needs(cluster, "--ray", options.ray is not None)


def _decoding(options: RunOptions) -> Any:
    if not options.generate:
        return None
    from ...lalm import Decoding

    return Decoding(
        options.max_new_tokens or MAX_NEW_TOKENS,
        options.temperature or 0.0,
        top_p=1.0 if options.top_p is None else options.top_p,
        seed=options.seed,
    )


def _cluster(options: RunOptions) -> Any:
    if options.ray is None:
        return False
    from ...experiments import RayWorkers

    address = None if options.ray == THIS_CLUSTER else options.ray
    return RayWorkers(address=address, workers=options.workers, gpus=options.gpus)


def _edits(lalm: LALM, layers: Any, options: RunOptions) -> dict[str, Any]:
    """The condition "mata", or one condition for each of several strengths."""
    from ...interventions import Mata, published_convention, published_layers
    from ...ranges import named_layers

    alphas = options.alphas or (DEFAULT_ALPHA,)
    settings = {
        "heads": options.heads,
        "phase": options.phase,
        "keys": options.keys,
        "queries": options.queries,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    where = layers
    if layers is None:
        where = published_layers(lalm)
        print_note(f"MATA edits {named_layers(where)}, the published layers ({published_convention(lalm)}).")
    edits = [Mata(alpha, where, rule=options.rule or DEFAULT_RULE, **settings) for alpha in alphas]
    if len(edits) == 1:
        return {"mata": edits[0]}
    return {f"mata, alpha {edit.alpha:g}": edit for edit in edits}


def _default_split(data: Items, layers: Any, seed: int) -> str:
    """All clips; the confirmation split where the layers were chosen on clips of this benchmark."""
    if layers == AUTO:
        return "confirmation"
    if not isinstance(layers, LayersFile) or not layers.chosen_on:
        return "all"
    every = clusters_of(data)
    met = every & layers.chosen_on
    if not met:
        return "all"
    print_note(
        f"the layers of {layers.path} were chosen on {len(met)} of the {len(every)} clips of {data.name}, so "
        "this run uses the confirmation split. --split all uses every clip."
    )
    return "confirmation"


# --------------------------------------------------------------------------------------------------- results
def _tables(done: Any) -> dict[str, pd.DataFrame]:
    """Condition -> its records with a known answer, by item."""
    scored = done.records[done.records["answer"].notna()]
    return {str(name): part.set_index("item") for name, part in scored.groupby("condition", sort=False)}


def _rates(tables: dict[str, pd.DataFrame], generate: bool) -> dict[str, dict[str, float] | None]:
    """Accuracies, and with ``generate`` the rates of unparsed and cut answers: name -> condition -> rate."""

    def mean(column: str) -> dict[str, float]:
        return {name: _mean(part[column]) for name, part in tables.items()}

    def other(column: str) -> dict[str, float] | None:
        return {name: 1 - value for name, value in mean(column).items()} if generate else None

    return {
        "accuracy": mean("correct"),
        "official": mean("official"),
        "unparsed": other("parsed"),
        "cut": other("stopped"),
    }


def _mean(values: Any) -> float:
    """The mean of a column without missing values; NaN if nothing is left."""
    known = values.dropna().to_numpy(dtype=float)
    return float(known.mean()) if len(known) else float("nan")


def _effects(tables: dict[str, pd.DataFrame], seed: int) -> dict[str, Any]:
    """Condition -> change of accuracy against the baseline."""
    from ...statistics import paired_effect

    effects = {}
    for name, part in tables.items():
        if name == BASELINE:
            continue
        before, after = tables[BASELINE], part.loc[tables[BASELINE].index]
        right = [table["correct"].astype(float).to_numpy() for table in (before, after)]
        effects[name] = paired_effect(*right, kind="binary", clusters=before["cluster"].tolist(), seed=seed)
    return effects


def _print(
    tables: dict[str, pd.DataFrame], rates: dict[str, Any], effects: dict[str, Any], out: Path
) -> None:
    """One line per condition: rates over all items, then accuracy by caption condition."""
    from ...reporting.wording import percent, printable

    if not tables:
        print(f"No item has a known answer, so nothing is scored. The predictions are in {out}.")
        return
    shown = {name: values for name, values in rates.items() if values is not None}
    captions = [name for name in dict.fromkeys(tables[BASELINE]["caption_condition"]) if name]
    rows = []
    for name, part in tables.items():
        overall = [percent(values[name]) for values in shown.values()]
        by_caption = [
            percent(_mean(part.loc[part["caption_condition"] == caption, "correct"])) for caption in captions
        ]
        rows.append([printable(name), str(len(part)), *overall, *by_caption])
    print_table(["condition", "items", *shown, *map(printable, captions)], rows)
    print()
    for name, effect in effects.items():
        print(str(effect) if len(effects) == 1 else f"{printable(name)}: {effect}")
    print(f"The run folder: {out}   (`mata-interp report {out}` writes its page)")
