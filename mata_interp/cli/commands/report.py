"""`mata-interp report`: the page of a run folder, or of several results side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...load_options import LoadOptions
from ..checks import check_excluded, check_folder, check_loading, check_out_file, usage_error
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
    results: Annotated[
        list[Path],
        typer.Argument(
            parser=parse_path,
            metavar="FOLDER [FOLDER ...]",
            help="A folder written by `study`, `run` or `sweep`, or the JSON file of `layers`. Two or more "
            "of one kind are put side by side.",
        ),
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
        typer.Option(
            "--paper",
            help="Also write figures, their data, tables and methods as files: into FOLDER/paper; of several "
            "results, into compare-A-B-paper beside the page.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        out_option(
            "File to write. Default: report.html in the folder; of several, compare-A-B.html beside the "
            "first.",
            "FILE",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the HTML report of a result: one file that loads nothing from the network.

    Several results of one kind are compared on one page: models, benchmarks or interventions on the same
    scales, and single items that runs share, joined by their hashes. Only --add-items needs the model and the
    benchmark; without --model, the model of the run is loaded.

    \b
    Examples
      mata-interp report runs/study-organism-listening
      mata-interp report runs/first --out first.html
      mata-interp report runs/first --paper
      mata-interp report runs/first --add-items clip-017,clip-203
      mata-interp report runs/qwen-mmau runs/omni-mmau --paper --out compare.html
      mata-interp report runs/sweep-organism-listening-windows
    """
    for path in results:
        _check_result(path)
    check_out_file(out)
    if add_items is None and model is not None:
        raise usage_error("it is used with --add-items only.", "--model")
    if len(results) > 1:
        _check_several(results, {"--add-items": add_items})
    folder = results[0]
    if add_items is not None:
        check_folder(folder, "FOLDER")
        source = Source(benchmark, audio_root, fields, subset)
        _record(folder, add_items, model, loading, source)
    from ...reporting.paper import beside, default_folder, save_files
    from ...reporting.writing import default_page, page_of, write_page

    page = page_of(results)
    file = write_page(page, out or default_page(results)).resolve()
    folder = beside(out) if out is not None and len(results) > 1 else default_folder(results)
    written = save_files(page, folder).resolve() if paper else None
    if as_json:
        print_result("report", {"report": file, "paper": written})
    else:
        print(f"The report: {file.as_uri()}")
        if written:
            print(f"The files for a paper: {written}")


def _check_result(path: Path) -> None:
    """Refuse a path that does not exist, and a file that no command wrote."""
    if path.is_file() and path.suffix not in (".json", ".nc"):
        raise usage_error(f"{str(path)!r} is a file; give a folder, or a JSON file of `layers`.", "FOLDER")
    if not path.exists():
        raise usage_error(f"{str(path)!r} does not exist.", "FOLDER")


def _check_several(results: list[Path], single: dict[str, Any]) -> None:
    """Refuse a result that is given twice, and options that are for one run."""
    places = [path.resolve() for path in results]
    for path, place in zip(results, places, strict=True):
        if places.count(place) > 1:
            raise usage_error(f"{str(path)!r} is given twice; give each folder once.", "FOLDER")
    check_excluded(single, "several folders", "it is for one run")


def _record(folder: Path, ids: tuple, model: str | None, loading: LoadOptions, source: Source) -> None:
    """Record these items of the run with its model."""
    import mata_interp

    run = mata_interp.load_run(folder)
    name = model_name(None, model or run.manifest["model"]["name"])
    check_loading(name, loading)
    items = source.usable()
    lalm = load_model(name, loading)
    mata_interp.record_items(lalm, run, items, () if ids == (AUTO,) else ids)
