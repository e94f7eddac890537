"""`mata-interp report`: the page of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...load_options import LoadOptions
from ..checks import check_folder, check_loading, check_out_file, usage_error
from ..inputs import Source, load_model, model_name
from ..options import (
    AS_STORED,
    AUTO,
    AsJson,
    AudioRoot,
    Benchmark,
    Fields,
    Model,
    Subset,
    out_option,
    parse_list,
    parse_path,
    with_load_options,
)
from ..output import print_result


@with_load_options
def report(  # noqa: PLR0913 a command has one parameter per option
    folder: Annotated[
        Path,
        typer.Argument(parser=parse_path, metavar="FOLDER", help="A folder written by `study` or `run`."),
    ],
    model: Model = None,
    loading: LoadOptions = AS_STORED,
    benchmark: Benchmark = "listening",
    audio_root: AudioRoot = None,
    fields: Fields = None,
    subset: Subset = None,
    add_items: Annotated[
        tuple | None,
        typer.Option(
            parser=parse_list,
            metavar="ID,ID",
            help="First record heads and audio of these items, so that the page can play them (ID;ID if one "
            "contains a comma); auto: six of each outcome. This runs the model.",
        ),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Also write figures, their data, tables and methods into FOLDER/paper."),
    ] = False,
    out: Annotated[
        Path | None, out_option("File to write. Default: report.html in the folder.", "FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the HTML report of a run folder: one file that loads nothing from the network.

    Only --add-items needs the model and the benchmark; without --model, the model of the run is loaded.

    \b
    Examples
      mata-interp report runs/study-organism-listening
      mata-interp report runs/first --out first.html
      mata-interp report runs/first --paper
      mata-interp report runs/first --add-items clip-017,clip-203
    """
    check_folder(folder, "FOLDER")
    check_out_file(out)
    if add_items is None and model is not None:
        raise usage_error("it is used with --add-items only.", "--model")
    if add_items is not None:
        source = Source(benchmark, audio_root, fields, subset)
        _record(folder, add_items, model, loading, source)
    from ...reporting import report as write_report
    from ...reporting.paper import paper as write_paper

    written = write_paper(folder).resolve() if paper else None  # first, as the page links to it
    page = write_report(folder, out).resolve()
    if as_json:
        print_result("report", {"report": page, "paper": written})
    else:
        print(f"The report: {page.as_uri()}")
        if written:
            print(f"The files for a paper: {written}")


def _record(folder: Path, ids: tuple, model: str | None, loading: LoadOptions, source: Source) -> None:
    """Record these items of the run with its model."""
    import mata_interp

    run = mata_interp.load_run(folder)
    name = model_name(None, model or run.manifest["model"]["name"])
    check_loading(name, loading)
    items = source.usable()
    lalm = load_model(name, loading)
    mata_interp.record_items(lalm, run, items, () if ids == (AUTO,) else ids)
