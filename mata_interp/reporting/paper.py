"""mi.paper: the figures, tables and methods of a result, or of several side by side, as files for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..execution.files import write_whole
from .exports import page_files
from .figures.svg import WIDE, figure_style, vector_file
from .parts import FigurePart, Page, parts_of
from .writing import default_page, page_of, paths_of

__all__ = ["FOLDER", "beside", "default_folder", "paper", "save_files"]

FOLDER = "paper"


def paper(result: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write what a paper needs from a result: figures, their data, tables, a methods paragraph.

    Figures and tables are those of the page that `mata_interp.report` writes, and the page's buttons save the
    same texts. ``NAME.svg`` and ``NAME.pdf`` are the figures, and ``NAME.csv`` the numbers that are drawn in
    both, in full precision. ``table-NAME.tex`` (booktabs), ``table-NAME.md`` and ``table-NAME.csv`` are the
    tables. For a run, ``methods.tex`` and ``methods.md`` say what was run, from the manifest, and cite
    ``references.bib``; several runs have one of each.

    Args:
        result: a folder that `mata_interp.study`, `mata_interp.run` or ``mata-interp sweep`` wrote, or a file
            of ``mata-interp layers``; or two or more results of one kind. The model is not needed.
        out: the folder to write; None: ``paper`` in the folder, ``NAME-paper`` beside a file ``NAME.json``;
            of several results, ``compare-A-B-paper`` in the folder that holds the first. Files of the same
            names are replaced.

    Returns:
        The folder.

    Raises:
        RunError: a result cannot be read or is given twice, several are of different kinds, or a file cannot
            be written.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> conditions = {"baseline": None, "mata": mi.Mata(1.0, [4, 5])}
        >>> run = mi.run(lalm, items[:6], conditions, out="for-a-paper", progress=False)
        >>> sorted(path.name for path in mi.paper("for-a-paper").glob("*.pdf"))
        ['flow.pdf', 'forest.pdf', 'tasks.pdf']
    """
    paths = paths_of(result)
    return save_files(page_of(paths), Path(out).expanduser() if out is not None else default_folder(paths))


def save_files(page: Page, folder: Path) -> Path:
    """Write the figures, tables and methods of a page; returns the folder.

    Args:
        page: The page.
        folder: Where the files go.
    """

    def save(name: str, content: bytes) -> None:
        write_whole(folder / name, lambda file: file.write(content), resumes=False)

    for part in parts_of(page):
        if isinstance(part, FigurePart):
            with figure_style(part.id):
                save(f"{part.id}.svg", vector_file(part.draw(WIDE), "svg"))
            save(f"{part.id}.pdf", part.pdf)
    for name, text in page_files(page).items():
        save(name, text.encode())
    return folder


def default_folder(paths: Sequence[Path]) -> Path:
    """Where the files of these results go: beside the page that `mata_interp.report` writes by default."""
    page = default_page(paths)
    return page.parent / FOLDER if len(paths) == 1 and paths[0].is_dir() else beside(page)


def beside(page: Path) -> Path:
    """The folder ``NAME-paper`` beside a page ``NAME.html``."""
    return page.with_name(f"{page.stem}-{FOLDER}")
