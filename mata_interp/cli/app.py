"""The commands of ``mata-interp``, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from ..organism.cli import app as organism_app
from ..version import __version__
from .commands import benchmark
from .commands.check import check
from .commands.layers import layers
from .commands.listen import listen
from .commands.report import report
from .commands.retest import retest
from .commands.run import run
from .commands.study import study
from .commands.sweep import sweep
from .commands.trace import trace
from .options import RayCommand

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Do large audio-language models use the audio? Traces of attention, MATA, causal effects.

    MATA raises the attention that the last token pays to the audio. Every command works on the small model
    and the benchmark that ship with the package, or on your own.

    \b
    Examples
      mata-interp study                        the whole analysis, with an HTML report
      mata-interp listen dog.wav "Which animal is it?" --choices "a dog,a cat"
      mata-interp check ./my-model             first, for a model of your own
    """,
)
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(organism_app, name="organism")


def _version(show: bool) -> None:
    if show:
        print(f"mata-interp {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command(short_help="Choose, measure and test: the whole analysis, with a report.", cls=RayCommand)(study)
app.command(short_help="Ask about one clip, with and without MATA.")(listen)
app.command(short_help="Measure the attention to audio, layer by layer.", cls=RayCommand)(trace)
app.command(short_help="Find the layers where text tokens read from audio.", cls=RayCommand)(layers)
app.command(short_help="Map the causal effect of many edits of attention.", cls=RayCommand)(sweep)
app.command(short_help="Validate a model against plain references.")(check)
app.command(short_help="Answer a benchmark with and without MATA.", cls=RayCommand)(run)
app.command(short_help="Write the HTML report of a run folder.")(report)
app.command(short_help="Measure the evidence of a shared intervention again.")(retest)
