"""`mata-interp layers`: the layers where text tokens read from audio."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...defaults import LAYER_ITEMS
from ...load_options import LoadOptions
from ..checks import (
    FIGURES,
    check_cluster_options,
    check_loading,
    check_name,
    check_needs,
    check_out_file,
    check_prompt,
)
from ..inputs import Source, clips_to_choose_on, load_model, model_name, take
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
    Model,
    ModelArgument,
    PromptFormat,
    Seed,
    Split,
    Subset,
    out_option,
    parse_list,
    parse_path,
    with_cluster_options,
    with_load_options,
)
from ..output import print_forecast, print_result, print_table, resumable

if TYPE_CHECKING:
    from ...benchmarks import Items
    from ...experiments import StageForecast
    from ...fusion import FusionProfile
    from ...lalm import LALM

HEADS = 6  # printed; --json has all


@with_load_options
@with_cluster_options
def layers(  # noqa: PLR0913 a command has one parameter per option
    model: ModelArgument = None,
    model_option: Model = None,
    loading: LoadOptions = AS_STORED,
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    split: Split = None,
    items: ItemCount = None,
    criteria: Annotated[
        tuple | None,
        typer.Option(parser=parse_list, metavar="A,B,C", help="Measure only these criteria. Default: all."),
    ] = None,
    prompt: PromptFormat = None,
    out: Annotated[
        Path | None, out_option("Write the whole profile to this JSON file, for --layers FILE.", "FILE")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(parser=parse_path, metavar="FILE", help="Draw the profile: a PNG, SVG or PDF file."),
    ] = None,
    profiles: Annotated[
        bool, typer.Option("--profiles", help="With --json: add the profile of every item.")
    ] = False,
    seed: Seed = 0,
    batch_size: BatchSize = BATCH_SIZE,
    dry_run: DryRun = False,
    cluster: ClusterOptions = NO_CLUSTER,
    as_json: AsJson = False,
) -> None:
    """Find the layers where text tokens read from audio. The result may be "none".

    Several criteria are measured. Those that change the model (attention knockout, activation patching)
    decide before those that only observe attention. Test the layers on other clips than these: `run` and
    `study` do so. With --out the search is resumable (run the same command again to continue), and a page is
    written beside the file.

    \b
    Examples
      mata-interp layers --out layers.json --figure layers.png
      mata-interp run --layers layers.json
      mata-interp run --layers auto      find layers on the selection split, test on the other clips
    """
    check_out_file(out)
    check_out_file(figure, "--figure", FIGURES)
    check_needs({"--profiles": profiles or None}, "--json", as_json)
    check_prompt(prompt)
    check_cluster_options(cluster)
    _check_criteria(criteria)
    name, source = model_name(model, model_option), Source(benchmark, audio_root, fields, subset)
    check_loading(name, loading)
    data, split = source.usable(), split or "selection"
    if split == "selection":
        chosen = clips_to_choose_on(data, items or LAYER_ITEMS, seed)
    else:
        chosen = take(data, split, items or LAYER_ITEMS, seed)
    lalm = load_model(name, loading)
    import mata_interp

    from ...progress import announce

    prompt_format = prompt or "options"
    forecast = _forecast(lalm, chosen, criteria, batch_size, prompt_format, out)
    if dry_run:
        print_forecast("layers --dry-run", forecast, out, as_json)
        return
    announce(str(forecast))
    with resumable() if out else nullcontext():
        profile = mata_interp.fusion_layers(
            lalm,
            chosen,
            criteria=criteria,
            seed=seed,
            prompt_format=prompt_format,
            batch_size=batch_size,
            out=out,
            ray=cluster.ray,
        )
    _draw(profile, figure)
    page = _write_page(profile, out)
    if as_json:
        written = {"split": split, "out": out, "figure": figure, "report": page}
        print_result(
            "layers", {**_values(profile), **written, "profile": profile.to_dict() if profiles else None}
        )
    else:
        _print(profile, data.name, split)
        for label, path in (("profile", out), ("figure", figure), ("report", page)):
            if path:
                print(f"The {label}: {path}")


def _check_criteria(criteria: tuple[str, ...] | None) -> None:
    if criteria is None:
        return
    from ...fusion import CRITERIA

    for name in criteria:
        check_name("criterion", name, CRITERIA, "--criteria")


def _forecast(
    lalm: LALM,
    chosen: Items,
    criteria: tuple[str, ...] | None,
    batch_size: int,
    prompt_format: str,
    out: Path | None,
) -> StageForecast:
    """What the search would do; the search itself reports which items it leaves out."""
    import warnings

    from ...errors import RunWarning
    from ...experiments.planning import StageSettings
    from ...experiments.stage_forecast import forecast_layers
    from ...experiments.validation import validate_items
    from ...fusion.criteria import criteria_named

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        valid_items = validate_items(lalm, chosen, scored=True, format=prompt_format)
    settings = StageSettings(batch_size, prompt_format=prompt_format)
    return forecast_layers(lalm, valid_items, criteria_named(criteria), settings, out)


def _draw(profile: FusionProfile, figure: Path | None) -> None:
    if figure:
        from ...execution.files import write_whole
        from ...reporting.figures.fusion import fusion
        from ...reporting.figures.svg import WIDE

        drawing, form = fusion(profile, WIDE), figure.suffix[1:].lower()
        write_whole(figure, lambda file: drawing.savefig(file, format=form, dpi=200), resumes=False)


def _write_page(profile: FusionProfile, out: Path | None) -> Path | None:
    """The page beside the file of the profile; None without a file."""
    if out is None:
        return None
    from ...reporting.stages import build_layers_page
    from ...reporting.writing import command_line, write_page

    return write_page(build_layers_page(profile, command_line()), out.with_suffix(".html"))


def _values(profile: FusionProfile) -> dict[str, Any]:
    """What the JSON says of a profile, without the profiles of single items."""
    whole, mean = profile.to_dict(), profile.mean
    same = ("model", "window", "verdict", "stability", "clips_needed", "summary", "layers", "share",
            "share_low", "share_high", "windows", "boundaries", "agreement", "refused", "excluded",
            "seed")  # fmt: skip
    about = ("label", "evidence", "reads", "unit")
    return {
        **{key: whole[key] for key in same},
        "items": profile.profiles.sizes["item"],
        "clips": len(profile.chosen_on),
        "criteria": {
            name: {**{key: entry[key] for key in about}, "mean": mean.sel(criterion=name).values}
            for name, entry in whole["criteria"].items()
        },
        "heads": profile.audio_heads.to_dict("records"),
    }


def _print(profile: FusionProfile, benchmark: str, split: str) -> None:
    from ...fusion import CRITERIA
    from ...ranges import layer_range
    from ...reporting.layers import editing
    from ...reporting.wording import count, printable

    size = f"{count(profile.profiles.sizes['item'], 'item')} of {count(len(profile.chosen_on), 'clip')}"
    print(f"{printable(profile.model)} on {printable(benchmark)}, {split}: {size}\n")
    rows = []
    for name, window in profile.windows.items():
        overlap = profile.agreement.loc["window", name]
        rows.append([CRITERIA[name].label, CRITERIA[name].evidence, layer_range(window), f"{overlap:.2f}"])
    print_table(["criterion", "evidence", "layers", "overlap"], rows)
    for name, reason in profile.refused.items():
        print(f"{CRITERIA[name].label}: not measured: {printable(reason)}")
    print(
        f"\nLayers for MATA: {layer_range(profile.window)}\n{printable(profile.summary)}\n{editing(profile)}"
    )
    if profile.heads is not None:
        print(_heads(profile))
    if profile.excluded:
        number = count(len(profile.excluded), "item")
        print(f"{number} left out; the first: {printable(profile.excluded[0])}")


def _heads(profile: FusionProfile) -> str:
    """The heads that carry audio information to the answer."""
    rows = profile.audio_heads.head(HEADS).itertuples(index=False)
    heads = [
        f"{layer}.{head} {value:+.2f} ({low:.2f} to {high:.2f})" for layer, head, value, low, high in rows
    ]
    if not heads:
        return "No head has a direct attribution from audio whose 95 % interval is above 0."
    return (
        "Heads that carry audio information to the answer (layer.head, direct attribution in logits, 95 % "
        f"interval of each head alone; {len(heads)} of {len(profile.audio_heads)}): {'; '.join(heads)}"
    )
