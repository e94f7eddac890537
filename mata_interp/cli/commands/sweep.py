"""`mata-interp sweep`: a causal map of a model over some items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...defaults import ALPHAS
from ...load_options import LoadOptions
from ..checks import (
    check_cluster_options,
    check_edit,
    check_loading,
    check_needs,
    check_out_folder,
    check_prompt,
    usage_error,
)
from ..grids import check_grid_options, read_grid
from ..inputs import AutoLayers, Source, load_model, model_name, read_layers, resolve_layers, take
from ..options import (
    AS_STORED,
    AUTO,
    BATCH_SIZE,
    LAYERS_HELP,
    NO_CLUSTER,
    Alpha,
    AsJson,
    AudioRoot,
    BatchSize,
    Benchmark,
    ClusterOptions,
    DryRun,
    Fields,
    GridFile,
    Heads,
    ItemCount,
    Keys,
    Model,
    ModelArgument,
    Phase,
    PromptFormat,
    Queries,
    Rule,
    Seed,
    Split,
    Subset,
    out_option,
    parse_layers,
    parse_layers_or_source,
    with_cluster_options,
    with_load_options,
)
from ..output import print_forecast, print_result, print_table, resumable

if TYPE_CHECKING:
    import xarray as xr

    from ...interventions import AttentionEdit, InterventionLike
    from ...lalm import LALM

WINDOWS, EACH, HEADS = "windows", "each", "heads"
MAPS = (WINDOWS, EACH, HEADS)
SHOWN = 10  # configurations in the printed table
NOTHING = "no intervention"

LayerSets = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="windows|each|heads|SETS|FILE|auto",
        help="windows (every window of neighbouring layers), each (each layer alone), heads (each head "
        f"alone), or sets separated by semicolons such as 3-5;2,7. Otherwise: {LAYERS_HELP} "
        "Default: windows.",
    ),
]
Widths = Annotated[
    tuple | None,
    typer.Option(
        parser=parse_layers,
        metavar="RANGE",
        help="Widths of the windows in layers, such as 1-4 (with --layers windows). Default: up to half of "
        "the attention layers.",
    ),
]


@dataclass(frozen=True)
class SweepOptions:
    """The options that say which edits are swept; None where an option was not used."""

    layers: str | None
    widths: tuple[int, ...] | None
    alphas: tuple[float, ...] | None
    rule: str | None
    heads: tuple[int, ...] | None
    keys: str | None
    queries: str | None
    phase: str | None
    grid: Path | None

    @property
    def kind(self) -> str:
        """Which map: windows, each, heads, sets, or the name of the grid file."""
        if self.grid is not None:
            return self.grid.stem
        chosen = (self.layers or WINDOWS).strip()
        return chosen if chosen in MAPS else "sets"


@with_load_options
@with_cluster_options
def sweep(  # noqa: PLR0913 a command has one parameter per option
    model: ModelArgument = None,
    model_option: Model = None,
    loading: LoadOptions = AS_STORED,
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    split: Split = None,
    items: ItemCount = None,
    layers: LayerSets = None,
    widths: Widths = None,
    alpha: Alpha = None,
    rule: Rule = None,
    heads: Heads = None,
    keys: Keys = None,
    queries: Queries = None,
    phase: Phase = None,
    grid: GridFile = None,
    prompt: PromptFormat = None,
    out: Annotated[
        Path | None, out_option("Folder to write. Default: runs/sweep-MODEL-BENCHMARK-KIND.")
    ] = None,
    seed: Seed = 0,
    batch_size: BatchSize = BATCH_SIZE,
    dry_run: DryRun = False,
    cluster: ClusterOptions = NO_CLUSTER,
    as_json: AsJson = False,
) -> None:
    """Measure how many different edits of attention change the answer, at little more than the cost of one.

    Writes the log-probabilities of all options under all edits (sweep.nc, netCDF), the map of the mean change
    of the margin (map.nc), its figure (map.png, map.svg) and a page (report.html), and prints the largest
    gains and losses. A map explores: it uses the selection split, and what it suggests is tested on other
    clips by study or run. A sweep is resumable: run the same command again to continue.

    \b
    Examples
      mata-interp sweep                                  every window of layers, five strengths, rule abs
      mata-interp sweep --layers each                    attention to audio knocked out in each layer
      mata-interp sweep --layers heads --items 50        the same in each head
      mata-interp sweep --layers heads --rule abs --alpha 1     attention to audio raised in each head
      mata-interp sweep --layers "1-3;4-6" --alpha 0.5,1,2 --keys text
      mata-interp sweep --layers each --queries text     audio hidden from all text after it
      mata-interp sweep --grid edits.toml                edits from a file, in which each looks like this:
        [early]
        alpha = 1.0
        layers = "1-3"
    """
    options = SweepOptions(layers, widths, alpha, rule, heads, keys, queries, phase, grid)
    _check(options)
    check_prompt(prompt)
    check_cluster_options(cluster)
    name, source = model_name(model, model_option), Source(benchmark, audio_root, fields, subset)
    check_loading(name, loading)
    out = out or Path("runs") / f"sweep-{Path(name).name}-{source.stem}-{options.kind}"
    check_out_folder(out)
    layers_source = _layers_source(options)
    split = split or "selection"
    data = take(whole := source.usable(), split, items, seed)
    edits = read_grid(grid) if grid else None
    lalm = load_model(name, loading)

    from ...experiments.conditions import named_conditions
    from ...experiments.manifest import known_beforehand
    from ...experiments.planning import StageSettings
    from ...experiments.selection import refuse_other_sweep, swept
    from ...experiments.stage_forecast import forecast_sweep
    from ...experiments.validation import validate_items
    from ...progress import announce

    settings = StageSettings(batch_size, True, seed, prompt or "options", cluster.ray)
    file = out / "sweep.nc"
    with resumable():
        if edits is None:
            auto = AutoLayers(lambda: whole, seed, settings.prompt_format, out, cluster.ray, dry_run)
            chosen = None if layers_source is None else resolve_layers(layers_source, lalm, auto)
            edits = configurations(lalm, options, chosen)
        conditions = {NOTHING: None, **edits}
        named = named_conditions(conditions)
        refuse_other_sweep(file, known_beforehand(lalm, named, batch_size, seed, settings.prompt_format))
        valid_items = validate_items(lalm, data, scored=True, format=settings.prompt_format)
        forecast = forecast_sweep(lalm, valid_items, conditions, settings, file)
        if dry_run:
            print_forecast("sweep --dry-run", forecast, out, as_json)
            return
        announce(str(forecast))
        result = swept(lalm, valid_items, conditions, file, settings)
    figure, no_map = _draw(result, edits, out)
    page = _write_page(out)
    rows, baseline = _changes(result), _baseline(result)
    if as_json:
        counts = {"items": len(valid_items.items), "clips": len(valid_items.clusters), "split": split}
        checks = {key: result.attrs[key] for key in ("canary", "looped", "culprits")}
        written = {"map": figure, "no_map": no_map, "out": out, "report": page}
        print_result(
            "sweep",
            {
                **counts,
                "baseline": baseline,
                "configurations": rows,
                **checks,
                "excluded": valid_items.excluded,
                **written,
            },
        )
        return
    from ...reporting.wording import count, number, percent, printable

    size = f"{count(len(valid_items.items), 'item')} of {count(len(valid_items.clusters), 'clip')}"
    print(f"{printable(lalm.name)} on {printable(data.name)}, {split}: {size}")
    margin, accuracy = number(baseline["margin"]), percent(baseline["accuracy"])
    print(f"without an edit: margin {margin} nats, accuracy {accuracy}\n")
    _print(rows)
    print(f"\nThe sweep: {file}")
    print(f"The map: {figure}" if figure else f"No map: {no_map}")
    print(f"The report: {page.resolve().as_uri()}")


# --------------------------------------------------------------------------------------------------- options
def _check(options: SweepOptions) -> None:
    """Refuse values and combinations that make no sense, before a model is loaded."""
    check_edit(options.rule, options.keys, options.queries, options.phase)
    check_grid_options(
        options.grid,
        {
            "--layers": options.layers,
            "--widths": options.widths,
            "--alpha": options.alphas,
            "--rule": options.rule,
            "--heads": options.heads,
            "--keys": options.keys,
            "--queries": options.queries,
            "--phase": options.phase,
        },
    )
    check_needs({"--widths": options.widths}, "--layers windows", options.kind == WINDOWS)
    if options.kind == HEADS and options.heads is not None:
        raise usage_error("--layers heads edits every head alone.", "--heads")
    if options.kind == HEADS and options.alphas and len(options.alphas) > 1:
        raise usage_error("a map of heads has one strength.", "--alpha")


def _layers_source(options: SweepOptions) -> Any:
    """Of ``--layers FILE`` or ``auto``, what `read_layers` returns; None where the option names layers.

    Raises:
        BadParameter: a set of layers cannot be read.
    """
    text = (options.layers or WINDOWS).strip()
    if text in MAPS:
        return None
    try:
        value = parse_layers_or_source(text)
    except typer.BadParameter:
        for part in text.split(";"):
            _layer_set(part)
        return None
    return read_layers(value) if value == AUTO or isinstance(value, Path) else None


def _layer_set(text: str) -> tuple[int, ...]:
    try:
        return parse_layers(text)
    except typer.BadParameter as error:
        raise usage_error(error.message, "--layers") from error


def configurations(lalm: LALM, options: SweepOptions, chosen: Any = None) -> dict[str, AttentionEdit]:
    """Name -> edit, as the options say.

    Args:
        chosen: layers or a FusionProfile, where ``--layers`` names a file or ``auto``.
    """
    from ...interventions import RULES, Mata
    from ...sweeps import by_alpha, head_configs, widths_up_to_half, window_configs

    alone = options.kind in (EACH, HEADS)
    rule = options.rule or ("knockout" if alone else "abs")
    one_strength = not RULES[rule].has_strength or (alone and not options.alphas)
    alphas: Sequence[float] = (1.0,) if one_strength else options.alphas or ALPHAS
    settings: dict[str, Any] = {
        name: value
        for name in ("heads", "keys", "queries", "phase")
        if (value := getattr(options, name)) is not None
    }
    if options.kind == HEADS:
        return head_configs(lalm, alphas[0], rule, **settings)
    if options.kind == EACH:
        return by_alpha([[layer] for layer in lalm.attention_layers], alphas, rule, **settings)
    if options.kind == WINDOWS:
        return window_configs(lalm, alphas, rule, options.widths or widths_up_to_half(lalm), **settings)
    if chosen is not None:
        edit = Mata(0.0, chosen)
        return by_alpha([edit.layers], alphas, rule, **settings, chosen_on=edit.chosen_on)
    sets = [_layer_set(part) for part in (options.layers or "").split(";")]
    return by_alpha(sets, alphas, rule, **settings)


# ----------------------------------------------------------------------------------------------------- result
def _draw(
    result: xr.DataArray, edits: Mapping[str, InterventionLike], out: Path
) -> tuple[Path | None, str | None]:
    """Write the map and its figure; the path of the figure, or why there is no map."""
    from ...execution.files import write_whole
    from ...interventions import AttentionEdit
    from ...plot import causal_map
    from ...reporting.figures.svg import figure_style
    from ...sweeps import change

    single = {name: edit for name, edit in edits.items() if hasattr(edit, "layers")}
    if len(single) < len(edits):
        return None, "an entry of the grid is not a single edit."
    scores = [edit for edit in single.values() if isinstance(edit, AttentionEdit)]
    if len({(edit.rule, edit.keys, edit.queries, edit.phase) for edit in scores}) > 1:
        return None, "the edits differ in rule, keys, queries or phase."
    try:
        effects = change(result, single, NOTHING)
        with figure_style("map"):
            drawing = causal_map(effects)
    except ValueError as error:  # the edits do not lie on one plane
        return None, " ".join(str(error).split())
    content = effects.to_netcdf(engine="scipy")
    write_whole(out / "map.nc", lambda file: file.write(content))
    for form in ("png", "svg"):
        write_whole(out / f"map.{form}", lambda file, form=form: drawing.savefig(file, format=form, dpi=200))
    return out / "map.png", None


def _write_page(out: Path) -> Path:
    from ...reporting import report

    return report(out)


def _baseline(result: xr.DataArray) -> dict[str, float]:
    from ...sweeps import correct, margin

    margins, right = margin(result), correct(result)
    return {
        "margin": float(margins.sel(configuration=NOTHING).mean()),
        "accuracy": float(right.sel(configuration=NOTHING).mean()),
    }


def _changes(result: xr.DataArray) -> list[dict[str, Any]]:
    """Each configuration, and how it changes the margin, with an interval over clips."""
    from ...statistics import clustered_interval
    from ...sweeps import correct, margin

    margins, right = margin(result), correct(result)
    edited = [name for name in result["configuration"].values if name != NOTHING]
    moved = (margins - margins.sel(configuration=NOTHING, drop=True)).sel(configuration=edited)
    mean, low, high = clustered_interval(moved.transpose("item", ...).values, result["cluster"].values)
    names = ("layers", "heads", "rule", "alpha", "group", "queries", "phase")
    labels = {name: moved[name].values.tolist() for name in names}
    return [
        {
            "name": str(name),
            **{label: values[k] for label, values in labels.items()},
            "change": float(mean[k]),
            "low": float(low[k]),
            "high": float(high[k]),
            "accuracy": float(right.sel(configuration=name).mean()),
        }
        for k, name in enumerate(edited)
    ]


def _print(rows: list[dict[str, Any]]) -> None:
    """The largest gains and losses, in order."""
    from ...reporting.wording import interval, number, percent, printable

    order = sorted(rows, key=lambda row: -row["change"])
    half = SHOWN // 2
    visible_rows = order if len(order) <= SHOWN else [*order[:half], None, *order[-half:]]

    def nats(value: float) -> str:
        return number(value, 3, sign=True)

    cells = []
    for row in visible_rows:
        if row is None:
            cells.append(["...", "", "", ""])
            continue
        limits = interval(row["low"], row["high"], nats)
        cells.append([printable(row["name"], 60), nats(row["change"]), limits, percent(row["accuracy"])])
    print_table(["configuration", "change, nats", "95 % over clips", "accuracy"], cells)
    print("\nEach interval stands alone: the best of many configurations looks better than it is.")
