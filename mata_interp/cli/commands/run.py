"""`mata-interp run`: a benchmark with and without MATA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ...load_options import LoadOptions
from ..checks import (
    check_answer_options,
    check_cluster_options,
    check_loading,
    check_out_folder,
    check_prompt,
)
from ..edits import NO_EDIT, EditOptions, check_edit_options, make_edits, with_edit_options
from ..grids import read_grid
from ..inputs import (
    AutoLayers,
    LayersFile,
    Source,
    clusters_of,
    load_model,
    model_name,
    resolve_layers,
    take,
)
from ..methods import print_methods
from ..options import (
    AS_STORED,
    AUTO,
    BATCH_SIZE,
    NO_ANSWERS,
    NO_CLUSTER,
    AnswerOptions,
    AsJson,
    AudioRoot,
    BatchSize,
    Benchmark,
    ClusterOptions,
    DryRun,
    Fields,
    ItemCount,
    ListMethods,
    Model,
    ModelArgument,
    PromptFormat,
    Seed,
    Split,
    Subset,
    out_option,
    with_answer_options,
    with_cluster_options,
    with_load_options,
)
from ..output import print_forecast, print_note, print_result, print_table, resumable

if TYPE_CHECKING:
    import pandas as pd

    from ...benchmarks import Items

BASELINE = "baseline"


@with_load_options
@with_edit_options(grid=True)
@with_answer_options
@with_cluster_options
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
    edit: EditOptions = NO_EDIT,
    list_methods: ListMethods = False,
    prompt: PromptFormat = None,
    answers: AnswerOptions = NO_ANSWERS,
    out: Annotated[Path | None, out_option("Run folder. Default: runs/MODEL-BENCHMARK.")] = None,
    seed: Seed = 0,
    batch_size: BatchSize = BATCH_SIZE,
    dry_run: DryRun = False,
    cluster: ClusterOptions = NO_CLUSTER,
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
      mata-interp run --method InstABoost --set factor=2 --layers 4-7
      mata-interp run --ray --workers 8
    """
    if list_methods:
        print_methods(as_json)
        return
    options = check_edit_options(edit)
    check_prompt(prompt)
    check_answer_options(answers)
    name, source = model_name(model, model_option), Source(benchmark, audio_root, fields, subset)
    check_loading(name, loading)
    out = out or Path("runs") / f"{Path(name).name}-{source.stem}"
    check_out_folder(out)
    check_cluster_options(cluster)
    edits = read_grid(options.grid) if options.grid else {}
    data, lalm = source.usable(), load_model(name, loading)

    auto = AutoLayers(lambda: data, seed, prompt or "options", out, cluster.ray, dry_run)
    chosen_layers = resolve_layers(options.layers, lalm, auto)
    split_name = split or _default_split(data, options.layers, seed)
    data = take(data, split_name, items, seed)
    conditions = {BASELINE: None, **(edits or make_edits(lalm, chosen_layers, options))}
    how = {
        "decoding": answers.decoding(seed),
        "prompt_format": prompt or "options",
        "batch_size": batch_size,
        "progress": True,
        "seed": seed,
    }
    import mata_interp

    if dry_run:
        forecast = mata_interp.forecast(lalm, data, conditions, out, **how)
        print_forecast("run --dry-run", forecast, out, as_json)
        return
    with resumable():
        done = mata_interp.run(lalm, data, conditions, out, ray=cluster.ray, **how)
    tables = _tables(done)
    rates, effects = _rates(tables, bool(answers.generate)), _effects(tables, done.chosen_on, seed)
    if as_json:
        values = {"items": len(set(done.records["item"])), "split": split_name, "excluded": done.excluded}
        changes = {name: effect.to_dict() for name, effect in effects.items()}
        print_result("run", {**values, **rates, "effects": changes, "out": out})
    else:
        _print(tables, rates, effects, out)


# --------------------------------------------------------------------------------------------------- options
def _default_split(data: Items, layers: Any, seed: int) -> str:
    """All clips; the confirmation split where the layers were chosen on clips of this benchmark."""
    if layers == AUTO:
        return "confirmation"
    if not isinstance(layers, LayersFile) or not layers.chosen_on:
        return "all"
    every = clusters_of(data)
    overlap = every & layers.chosen_on
    if not overlap:
        return "all"
    print_note(
        f"the layers of {layers.path} were chosen on {len(overlap)} of the {len(every)} clips of "
        f"{data.name}, so this run uses the confirmation split. --split all uses every clip."
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
    numbers = values.dropna().to_numpy(dtype=float)
    return float(numbers.mean()) if len(numbers) else float("nan")


def _effects(tables: dict[str, pd.DataFrame], chosen_on: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Condition -> change of accuracy against the baseline; without p-values if chosen on these clips."""
    from ...statistics import paired_effect

    effects = {}
    for name, part in tables.items():
        if name == BASELINE:
            continue
        before, after = tables[BASELINE], part.loc[tables[BASELINE].index]
        right = [table["correct"].astype(float).to_numpy() for table in (before, after)]
        effects[name] = paired_effect(
            *right,
            kind="binary",
            clusters=before["cluster"].tolist(),
            seed=seed,
            chosen_on=chosen_on.get(name, ()),
        )
    return effects


def _print(
    tables: dict[str, pd.DataFrame], rates: dict[str, Any], effects: dict[str, Any], out: Path
) -> None:
    """One line per condition: rates over all items, then accuracy by caption condition."""
    from ...reporting.wording import percent, printable

    if not tables:
        print(f"No item has a known answer, so nothing is scored. The predictions are in {out}.")
        return
    columns = {name: values for name, values in rates.items() if values is not None}
    captions = [name for name in dict.fromkeys(tables[BASELINE]["caption_condition"]) if name]
    rows = []
    for name, part in tables.items():
        overall = [percent(values[name]) for values in columns.values()]
        by_caption = [
            percent(_mean(part.loc[part["caption_condition"] == caption, "correct"])) for caption in captions
        ]
        rows.append([printable(name), str(len(part)), *overall, *by_caption])
    print_table(["condition", "items", *columns, *map(printable, captions)], rows)
    print()
    for name, effect in effects.items():
        print(str(effect) if len(effects) == 1 else f"{printable(name)}: {effect}")
    print(f"The run folder: {out}   (`mata-interp report {out}` writes its page)")
