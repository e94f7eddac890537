"""`mata-interp study`: the whole analysis in one command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

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
from ..method_study import MethodOptions, check_method_options, study_the_method
from ..methods import print_methods
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
    ListMethods,
    MethodName,
    Model,
    ModelArgument,
    PromptFormat,
    Rule,
    Seed,
    Settings,
    Subset,
    out_option,
    parse_path,
    with_answer_options,
    with_cluster_options,
    with_load_options,
)
from ..output import print_forecast, print_result, resumable


def parse_names(text: str) -> tuple[str, ...]:
    """``heads,signs`` -> a tuple."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


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
    method: MethodName = None,
    method_settings: Settings = None,
    list_methods: ListMethods = False,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="full|coarse",
            help="Try every window of layers with every strength, or search from coarse to fine. Default: "
            "coarse where there are more than 600 of them (18 layers and more) and clips enough.",
        ),
    ] = None,
    crossfit: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="FOLDS",
            help="Also estimate the effect of the selection procedure: choose without each fold of the clips "
            "of both splits, measure on it, and repeat the choice in every resample. 5 is usual.",
        ),
    ] = None,
    shams: Annotated[
        tuple | None,
        typer.Option(
            parser=parse_names,
            metavar="NAMES",
            help="Further shams, with commas between: heads (MATA in a random half of the heads), signs "
            "(with the opposite sign in the other half), silence, reversed (audio backwards).",
        ),
    ] = None,
    repeat_baseline: Annotated[
        bool,
        typer.Option(
            "--repeat-baseline",
            help="Also answer without MATA at another batch size (an A/A run): how many answers change "
            "by rounding alone.",
        ),
    ] = False,
    option_order: Annotated[
        str,
        typer.Option(
            "--option-order",
            metavar="ORDER",
            help="Order of the options: original, shuffled (each item in its own order) or cyclic (each item "
            "once for each option, which moves on by one place).",
        ),
    ] = "original",
    samples: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Sampled answers to each item (with --generate and a temperature above 0); those of an item "
            "count as one unit.",
        ),
    ] = 1,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Run no study: say what it could detect and how many items it needs, from a pilot on 40 "
            "items of the selection split.",
        ),
    ] = False,
    preregister: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path,
            metavar="FILE",
            help="Write hypotheses, margins, splits and analysis with a hash to FILE and stop. Where FILE "
            "exists, run the study and say whether it kept to it.",
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
      mata-interp study --plan             what it could detect, from a pilot on 40 items
      mata-interp study --preregister plan.json      writes the plan; the same again runs the study
      mata-interp study --crossfit 5 --repeat-baseline --shams heads,signs
      mata-interp study --method InstABoost --set factor=2      a method of the catalogue in place of MATA
      mata-interp study --ray              on all GPUs of this machine or cluster
    """
    if list_methods:
        print_methods(as_json)
        return
    of_method = MethodOptions(method, method_settings)
    of_mata = {
        "--alpha": alpha, "--rule": rule, "--search": search, "--crossfit": crossfit, "--shams": shams,
        "--repeat-baseline": repeat_baseline or None, "--plan": plan or None, "--preregister": preregister,
        "--ray": cluster.address,
    }  # fmt: skip
    check_method_options(of_method, of_mata)
    name = model_name(model, model_option)
    check_loading(name, loading)
    source = Source(benchmark, audio_root, fields, subset)
    kind = "study" if method is None else f"study-{method.lower()}"
    out = out or Path("runs") / f"{kind}-{Path(name).name}-{source.stem}"
    check_out_folder(out)
    _check(rule, alpha)
    check_prompt(prompt)
    check_answer_options(answers)
    check_cluster_options(cluster)
    if search is not None:
        check_name("search", search, ("full", "coarse"), "--search")
    _check_claims(shams, option_order, samples, answers)
    layer_choice = read_layers(layers)
    data, lalm = _asked(source.usable(), option_order, samples, seed), load_model(name, loading)
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
        "crossfit": crossfit,
        "shams": shams or (),
    }
    stop = Stop(plan, preregister, as_json)
    with resumable():
        auto = AutoLayers(lambda: data, seed, prompt or "options", out, cluster.ray, dry_run)
        settings["layers"] = resolve_layers(layer_choice, lalm, auto)
        if method is not None:
            names = ("decoding", "prompt_format", "items_limit", "batch_size", "seed")
            some = {name: settings[name] for name in names}
            chosen_layers = settings["layers"]
            study_the_method(
                lalm, data, of_method, chosen_layers, out, dry_run=dry_run, as_json=as_json, **some
            )
            return
        if stop.before_a_study(lalm, data, settings):
            return
        settings["repeat_baseline"] = repeat_baseline
        if dry_run:
            forecast = mata_interp.forecast_study(lalm, data, out, **settings)
            print_forecast("study --dry-run", forecast, out, as_json)
            return
        run = mata_interp.study(lalm, data, out, ray=cluster.ray, registration=preregister, **settings)
    from ...reporting.procedure import extra_sentences

    page = mata_interp.report(out).resolve()
    result = run.study
    assert result is not None
    if as_json:
        chosen, primary = asdict(result.selection.chosen), result.primary.to_dict()
        print_result("study", {"answer": result.answer, "primary": primary, "chosen": chosen, "report": page})
    else:
        print("\n\n".join([result.answer, *extra_sentences(run), f"The report: {page.as_uri()}"]))


@dataclass(frozen=True)
class Stop:
    """What is printed instead of a study: a plan, or a preregistration that is not there yet."""

    plan: bool
    registration: Path | None
    as_json: bool

    def before_a_study(self, lalm: Any, data: Any, settings: Mapping[str, Any]) -> bool:
        """Print it if it was asked for; whether it was."""
        import mata_interp

        if self.plan:
            beside = ("decoding", "search", "crossfit", "shams")
            shared = {name: value for name, value in settings.items() if name not in beside}
            result = mata_interp.plan_study(lalm, data, **shared)
            print_result("study --plan", result.to_dict()) if self.as_json else print(result)
            return True
        if self.registration is None or self.registration.exists():
            return False
        written = mata_interp.preregister(lalm, data, self.registration, **settings)
        if self.as_json:
            values = {"file": self.registration, "sha256": written.sha256, "created": written.created}
            print_result("study --preregister", values | {"plan": written.plan})
        else:
            print(
                f"The plan is in {self.registration}, SHA-256 {written.sha256}. No answer has been computed. "
                "Run the same command again to run the study."
            )
        return True


def _asked(data: Any, option_order: str, samples: int, seed: int) -> Any:
    """The items as often and in the order of options that was asked for."""
    import mata_interp

    return mata_interp.repeat_items(mata_interp.reorder_options(data, option_order, seed), samples)  # type: ignore[arg-type]


def _check_claims(
    shams: Sequence[str] | None, option_order: str, samples: int, answers: AnswerOptions
) -> None:
    """Refuse options that make no sense, before a model is loaded."""
    for name in shams or ():
        check_name("sham", name, ("heads", "signs", "silence", "reversed"), "--shams")
    check_name("option order", option_order, ("original", "shuffled", "cyclic"), "--option-order")
    if samples > 1 and not (answers.generate and answers.temperature):
        raise usage_error("several samples need --generate and a --temperature above 0.", "--samples")


def _check(rule: str | None, alphas: tuple[float, ...] | None) -> None:
    """Refuse rules and strengths that a study cannot choose from, before a model is loaded."""
    from ...interventions import RULES

    check_edit(rule)
    if rule is not None and not RULES[rule].has_strength:
        raise usage_error(f"{rule!r} has no strength, and a study chooses one.", "--rule")
    if alphas and min(alphas) <= 0:
        raise usage_error("a study chooses among strengths above 0.", "--alpha")
