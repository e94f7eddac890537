"""`mata-interp study`: the whole analysis in one command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ...defaults import ALPHAS
from ...load_options import LoadOptions
from ..checks import (
    check_answer_options,
    check_cluster_options,
    check_edit,
    check_loading,
    check_name,
    check_out_folder,
    check_prompt,
    usage_error,
)
from ..inputs import AutoLayers, Source, load_model, model_name, read_layers, resolve_layers
from ..options import (
    AS_STORED,
    BATCH_SIZE,
    DEFAULT_RULE,
    NO_ANSWERS,
    NO_CLUSTER,
    Alpha,
    AnswerOptions,
    AsJson,
    AudioRoot,
    BatchSize,
    Benchmark,
    ClusterOptions,
    DryRun,
    Fields,
    ItemCount,
    Layers,
    Model,
    ModelArgument,
    PromptFormat,
    Rule,
    Seed,
    Subset,
    out_option,
    with_answer_options,
    with_cluster_options,
    with_load_options,
)
from ..output import print_forecast, print_result, resumable


@with_load_options
@with_answer_options
@with_cluster_options
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
    alpha: Alpha = None,
    rule: Rule = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="full|coarse",
            help="Try every window of layers with every strength, or search from coarse to fine. Default: "
            "coarse where there are more than 600 of them (18 layers and more) and clips enough.",
        ),
    ] = None,
    prompt: PromptFormat = None,
    answers: AnswerOptions = NO_ANSWERS,
    out: Annotated[Path | None, out_option("Run folder. Default: runs/study-MODEL-BENCHMARK.")] = None,
    seed: Seed = 0,
    batch_size: BatchSize = BATCH_SIZE,
    dry_run: DryRun = False,
    cluster: ClusterOptions = NO_CLUSTER,
    as_json: AsJson = False,
) -> None:
    """Test whether MATA helps a model on a benchmark: choose, measure, test and report.

    Layers and alpha are chosen on the clips of one split and tested on those of the other, beside controls.
    With --layers only alpha is chosen. With --generate the tested answers are generated and scored by the
    option that each names. Runs are resumable: run the same command again to continue.

    \b
    Examples
      mata-interp study
      mata-interp study --items 60 --out runs/quick
      mata-interp study Qwen/Qwen2-Audio-7B-Instruct --benchmark mmau-test-mini.json
      mata-interp study --benchmark MMSU.jsonl --fields mmsu --audio-root audio/
      mata-interp study --layers auto      use the layers that `mata-interp layers` finds
      mata-interp study --generate --prompt r1-aqa --max-new-tokens 512
      mata-interp study --dry-run          which items, how long, how much memory
      mata-interp study --ray              on all GPUs of this machine or cluster
    """
    name = model_name(model, model_option)
    check_loading(name, loading)
    source = Source(benchmark, audio_root, fields, subset)
    out = out or Path("runs") / f"study-{Path(name).name}-{source.stem}"
    check_out_folder(out)
    _check(rule, alpha)
    check_prompt(prompt)
    check_answer_options(answers)
    check_cluster_options(cluster)
    if search is not None:
        check_name("search", search, ("full", "coarse"), "--search")
    wanted = read_layers(layers)
    data, lalm = source.usable(), load_model(name, loading)
    import mata_interp

    settings = {
        "alphas": alpha or ALPHAS,
        "rule": rule or DEFAULT_RULE,
        "search": search,
        "decoding": answers.decoding(seed),
        "prompt_format": prompt or "options",
        "items_limit": items,
        "batch_size": batch_size,
        "seed": seed,
    }
    with resumable():
        auto = AutoLayers(lambda: data, seed, prompt or "options", out, cluster.ray, dry_run)
        chosen_layers = resolve_layers(wanted, lalm, auto)
        if dry_run:
            forecast = mata_interp.forecast_study(lalm, data, out, layers=chosen_layers, **settings)
            print_forecast("study --dry-run", forecast, out, as_json)
            return
        run = mata_interp.study(lalm, data, out, layers=chosen_layers, ray=cluster.ray, **settings)
    page = mata_interp.report(out).resolve()
    result = run.study
    assert result is not None
    if as_json:
        chosen, primary = asdict(result.selection.chosen), result.primary.to_dict()
        print_result("study", {"answer": result.answer, "primary": primary, "chosen": chosen, "report": page})
    else:
        print(f"{result.answer}\n\nThe report: {page.as_uri()}")


def _check(rule: str | None, alphas: tuple[float, ...] | None) -> None:
    """Refuse rules and strengths that a study cannot choose from, before a model is loaded."""
    from ...interventions import RULES

    check_edit(rule)
    if rule is not None and not RULES[rule].has_strength:
        raise usage_error(f"{rule!r} has no strength, and a study chooses one.", "--rule")
    if alphas and min(alphas) <= 0:
        raise usage_error("a study chooses among strengths above 0.", "--alpha")
