"""mi.paper: the figures, tables and methods of a run folder as files for a paper."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup, escape

from ...execution.files import write_whole
from ...experiments import Run, load_run
from .figures import write_figures
from .methods import write_methods
from .tables import write_tables

__all__ = ["FOLDER", "paper", "paper_links"]

FOLDER = "paper"


def paper(run_folder: str | Path, out: str | Path | None = None) -> Path:
    """Write what a paper needs from a run folder: figures, their data, tables, a methods paragraph.

    ``NAME.svg`` and ``NAME.pdf`` are the figures, and ``NAME.csv`` the numbers that are drawn in both, in
    full precision. ``table-NAME.tex`` (booktabs) and ``table-NAME.md`` are the tables of the page.
    ``methods.tex`` and ``methods.md`` say what was run, from the manifest, and cite ``references.bib``.

    Args:
        run_folder: a folder that `mata_interp.study` or `mata_interp.run` wrote; the model is not needed.
        out: the folder to write; None: ``paper`` in the run folder. Files of the same names are replaced.

    Returns:
        The folder.

    Raises:
        RunError: it is not a run folder, or a file cannot be written.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> conditions = {"baseline": None, "mata": mi.Mata(1.0, [4, 5])}
        >>> run = mi.run(lalm, items[:6], conditions, out="for-a-paper", progress=False)
        >>> sorted(path.name for path in mi.paper("for-a-paper").glob("*.csv"))
        ['change-in-accuracy.csv', 'change-of-log-probability-difference.csv', 'items.csv']
    """
    run = load_run(run_folder)
    folder = Path(out).expanduser() if out is not None else Path(run_folder) / FOLDER

    def save(name: str, content: bytes) -> None:
        write_whole(folder / name, lambda file: file.write(content), resumes=False)

    write_figures(run, save)
    write_tables(run, save)
    write_methods(run, save)
    return folder


def paper_links(run: Run) -> Markup:
    """Links to the files of a run's ``paper`` folder, relative to its page; empty where there are none.

    For a page that stands in the run folder. Files are grouped by what they show.
    """
    folder = None if run.path is None else run.path / FOLDER
    if folder is None or not folder.is_dir():
        return Markup("")
    names: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        names.setdefault(path.stem, []).append(path.suffix[1:])
    rows = [
        Markup("<li>{}: {}</li>").format(
            stem.replace("-", " "),
            Markup(", ").join(
                Markup('<a href="{}">{}</a>').format(f"{FOLDER}/{stem}.{kind}", kind.upper())
                for kind in kinds
            ),
        )
        for stem, kinds in names.items()
    ]
    return Markup('<ul class="paper">{}</ul>').format(Markup("").join(map(escape, rows)))
