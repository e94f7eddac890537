"""The commands, each a thin call of a public function of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import __version__
from ..organism.cli import app as organism_app
from . import benchmark
from .layers import layers as find_layers
from .opening import Source, open_model
from .options import (
    Alpha,
    AsJson,
    AudioRoot,
    BatchSize,
    Benchmark,
    Fields,
    Generate,
    GpusPerWorker,
    ItemCount,
    Layers,
    MaxNewTokens,
    Model,
    Phase,
    PromptName,
    Ray,
    Rule,
    Seed,
    Subset,
    Temperature,
    TopP,
    WithRay,
    Workers,
    parse_choices,
)
from .output import print_json
from .study import study
from .sweep import sweep

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Do large audio-language models listen? Attention traces, MATA and its controls, the causal effect.

    \b
    Begin with
      mata-interp study     the whole road on the model and benchmark that ship
      mata-interp listen dog.wav "Which animal is it?" --choices "a dog,a cat"
    """,
)
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(organism_app, name="organism")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mata-interp {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command(short_help="From model and benchmark to a tested answer and its page.")(study)


@app.command(short_help="One clip: the answer with and without MATA.")
def listen(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A sound file: WAV, FLAC, OGG, MP3.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    choices: Annotated[
        tuple | None,
        typer.Option(
            parser=parse_choices, metavar="A,B,C", help="Options (or A;B;C where one holds a comma)."
        ),
    ] = None,
    model: Model = "organism",
    alpha: Alpha = 0.1,
    layers: Layers = None,
    rule: Rule = "abs",
    out: Annotated[Path | None, typer.Option(help="Write a page with a player to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """One clip: the answer with and without MATA, and where in the sound the model looked.

    \b
    Examples
      mata-interp listen dog.wav "Which animal is it?" --choices "a dog,a cat"
      mata-interp listen dog.wav "What is heard?" --alpha 1 --layers 3-5 --out dog.html
    """
    import mata_interp as mi

    from .fusing import layers_wanted

    lalm = open_model(model)
    layers = layers_wanted(layers, lalm, lambda: mi.load_benchmark("listening"))
    heard = mi.listen(lalm, clip, question, choices or (), alpha=alpha, layers=layers, rule=rule)
    page = heard.save(out).resolve() if out else None
    if as_json:
        print_json({**heard.to_dict(), "page": page})
    else:
        print(heard)
        if page:
            print(f"\nThe page: {page.as_uri()}")


@app.command(short_help="Where the answering token looks, layer by layer.")
def trace(
    model: Model = "organism",
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    items: ItemCount = None,
    query: Annotated[
        Literal["last", "text", "generated"],
        typer.Option(
            help="Whose attention: of the last prompt token, all text after the audio, or an answer's."
        ),
    ] = "last",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of an answer, for --query generated.")] = 32,
    out: Annotated[Path | None, typer.Option(help="Keep the whole trace, as netCDF.")] = None,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    as_json: AsJson = False,
) -> None:
    """Where the answering token looks: the share of audio in its attention, layer by layer.

    \b
    Examples
      mata-interp trace --items 100
      mata-interp trace --query text       the mean over the tokens of question, options and template
      mata-interp trace --out trace.nc     read it with xarray.open_dataset(..., engine="scipy")
    """
    from .tracing import trace_benchmark

    source = Source(benchmark, audio_root, fields, subset)
    trace_benchmark(model, source, items, query, max_new_tokens, out, seed, batch_size, as_json)


app.command("layers", short_help="In which layers text takes in what was heard.")(find_layers)
app.command(short_help="A causal map: many edits of the same items, each prompt read once.")(sweep)


@app.command(short_help="Does every instrument tell the truth on a model?")
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="organism, a folder, or a Hugging Face id.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Precision to load it in; the model's own if not given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what is read and edited in a model with plain references, on this machine.

    Attention rows, edits, padding, caches, scores, sweeps and transformer-lens, a line each, in some thirty
    forward passes. Exit code 0 if all lines pass or are not applicable, else 1. In a mixture of experts,
    runs in which rounding chose other experts are compared with the same ones, and the line says so.

    \b
    Examples
      mata-interp check Qwen/Qwen2-Audio-7B-Instruct --dtype bfloat16
      mata-interp check ./my-model --json
    """
    from .checking import check_model

    check_model(model, dtype, as_json)


@app.command(short_help="Answer a benchmark with and without MATA.", cls=WithRay)
def run(
    model: Model = "organism",
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    items: ItemCount = None,
    alpha: Alpha = 0.1,
    layers: Layers = None,
    rule: Rule = "abs",
    phase: Phase = "both",
    prompt: PromptName = "options",
    generate: Generate = False,
    max_new_tokens: MaxNewTokens = 64,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/MODEL-BENCHMARK if not given.")] = None,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and about how long it would take.")
    ] = False,
    ray: Ray = None,
    workers: Workers = None,
    gpus: GpusPerWorker = None,
    as_json: AsJson = False,
) -> None:
    """Answer a benchmark with and without MATA, as you set it; nothing is chosen for you.

    To have layers and alpha chosen on other clips, and controls beside them, use study. Stopped at any
    moment, the same command goes on from there; given to several processes at once, they share the work.

    \b
    Examples
      mata-interp run --alpha 1 --layers 3-4 --items 300
      mata-interp run --alpha 1 --layers auto
      mata-interp run --benchmark mine.jsonl --rule add --alpha 0.5 --out runs/add
      mata-interp run --generate --prompt r1-aqa --max-new-tokens 512
      mata-interp run --ray --workers 8
    """
    from .running import How, run_benchmark

    out = out or Path("runs") / f"{Path(model).name}-{Path(benchmark).stem}"
    how = How(
        alpha, layers, rule, phase, prompt, generate, max_new_tokens, temperature, top_p, seed, batch_size,
        ray, workers, gpus,
    )  # fmt: skip
    run_benchmark(model, Source(benchmark, audio_root, fields, subset), items, how, out, dry_run, as_json)


@app.command(short_help="Write the page of a run folder.")
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run folder, of study or run.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to; report.html in the folder if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the page of a run folder: one file that loads nothing from anywhere.

    \b
    Example
      mata-interp report runs/study-organism-listening
    """
    from ..reporting import report as write_report

    page = write_report(folder, out).resolve()
    if as_json:
        print_json({"report": page})
    else:
        print(f"The page: {page.as_uri()}")
