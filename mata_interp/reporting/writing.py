"""mi.report: the page of a result, or of several side by side, as one self-contained HTML file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError
from ..execution.files import write_whole
from ..experiments import load_run
from ..version import __version__
from .page import build_page
from .parts import Page
from .provenance import short_command
from .render import render_page
from .side_by_side import comparison_page
from .stages import KINDS, Kind, kind_of, layers_page, sweep_page

__all__ = ["command_line", "default_page", "page_of", "paths_of", "report", "write_page"]


def report(result: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the page of a result, or of several side by side: one HTML file that loads nothing from outside.

    The page of a `study` begins with its answer, the effect and the controls. That of a plain `run` compares
    every condition with the baseline. A section stands on the page if the folder has what it shows.

    With several runs, the page puts models, benchmarks or interventions on the same scales. Items are joined
    by the hashes of their words, labels and sound; differences on shared items are paired, with intervals and
    tests corrected over all rows of a table (Holm). What the runs do not share is listed and counted.

    Args:
        result: A folder that `study` or `run` wrote, a folder of ``mata-interp sweep`` or a file that
            `FusionProfile.save` or ``mata-interp layers`` wrote. Or two or more results of one kind.
        out: The file to write. None: ``report.html`` in the folder, ``NAME.html`` beside a file
            ``NAME.json``; of several results ``compare-A-B.html`` in the folder that holds the first.

    Returns:
        The path of the page.

    Raises:
        RunError: A result cannot be read or is given twice, several are of different kinds, or the page
            cannot be written.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> conditions = {"baseline": None, "mata": mi.Mata(1.0, [4, 5])}
        >>> one = mi.run(lalm, items[:4], conditions, out="one", progress=False)
        >>> mi.report("one").name
        'report.html'
        >>> two = mi.run(lalm, items[:6], conditions, out="two", progress=False)
        >>> mi.report(["one", "two"]).name
        'compare-one-two.html'
    """
    paths = paths_of(result)
    page = page_of(paths)
    return write_page(page, Path(out).expanduser() if out is not None else default_page(paths))


def paths_of(result: str | Path | Sequence[str | Path]) -> list[Path]:
    """The paths of a result, or of several."""
    results = [result] if isinstance(result, str | Path) else list(result)
    return [Path(each).expanduser() for each in results]


def page_of(paths: Sequence[Path]) -> Page:
    """The page of one result, or of several, as data.

    Raises:
        RunError: As in `report`.
    """
    if not paths:
        raise RunError("No result is given. Give a folder of a run, or several.")
    kinds: list[Kind] = [kind_of(path) for path in paths]
    if len(set(kinds)) > 1:
        words = ", ".join(f"{path} is {KINDS[kind]}" for path, kind in zip(paths, kinds, strict=True))
        raise RunError(f"Only results of one kind can be put side by side: {words}.")
    if kinds[0] == "layers":
        return layers_page(paths)
    if kinds[0] == "sweep":
        return sweep_page(paths)
    return build_page(load_run(paths[0])) if len(paths) == 1 else comparison_page(paths)


def write_page(page: Page, path: Path) -> Path:
    """Write a page, whole or not at all; returns its path."""
    html = render_page(page, __version__)
    write_whole(path, lambda file: file.write(html.encode("utf-8", errors="replace")), resumes=False)
    return path


def command_line() -> str:
    """The running command as a reader would type it, without the folder of the program."""
    return short_command(shlex.join(sys.argv))


def default_page(paths: Sequence[Path]) -> Path:
    """Where the page of these results is written by default."""
    if len(paths) > 1:
        names = [path.resolve().stem if path.is_file() else path.resolve().name for path in paths]
        shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3}-more"]
        return paths[0].resolve().parent / f"compare-{'-'.join(shown)}.html"
    return paths[0].with_suffix(".html") if paths[0].is_file() else paths[0] / "report.html"
