"""`mata-interp report`: the page of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..checks import check_folder, check_out_file
from ..options import AsJson, out_option, parse_path
from ..output import print_result


def report(
    folder: Annotated[
        Path,
        typer.Argument(parser=parse_path, metavar="FOLDER", help="A folder written by `study` or `run`."),
    ],
    out: Annotated[
        Path | None, out_option("File to write. Default: report.html in the folder.", "FILE")
    ] = None,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Also write figures, their data, tables and methods into FOLDER/paper."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the HTML report of a run folder: one file that loads nothing from the network.

    \b
    Examples
      mata-interp report runs/study-organism-listening
      mata-interp report runs/first --out first.html
      mata-interp report runs/first --paper
    """
    check_folder(folder, "FOLDER")
    check_out_file(out)
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
