"""The tables of a run's page as LaTeX (booktabs) and Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from ...experiments import Run
from ..page import build_page
from ..parts import Table

__all__ = ["latex", "latex_text", "markdown", "tables_of", "write_tables"]

Save = Callable[[str, bytes], None]

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "\u2212": r"$-$",
    "\u2013": "--",
    "\u2014": "---",
    "\u2026": r"\ldots{}",
    "\u00a0": "~",
    "\u202f": r"\,",
    "\u2192": r"$\to$",
    "\u221e": r"$\infty$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
    "\u00d7": r"$\times$",
    "\u00b1": r"$\pm$",
    "\u03b1": r"$\alpha$",
    "\u2713": "yes",
    "\u2717": "no",
}


def write_tables(run: Run, save: Save) -> None:
    """Write every table of the run's page as ``table-NAME.tex`` and ``table-NAME.md``.

    Args:
        run: the run.
        save: takes a file's name and content.
    """
    names: dict[str, int] = {}
    for table in tables_of(run):
        name = re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-")[:60] or "table"
        names[name] = names.get(name, 0) + 1
        stem = f"table-{name}" + (f"-{names[name]}" if names[name] > 1 else "")
        save(f"{stem}.tex", latex(table, f"tab:{stem.removeprefix('table-')}").encode())
        save(f"{stem}.md", markdown(table).encode())


def tables_of(run: Run) -> Iterator[Table]:
    """The tables of a run's page, without their numbers."""
    for section in build_page(run).sections:
        for _, part in section.content:
            if isinstance(part, Table):
                yield replace(part, title=re.sub(r"^Table \d+\. ", "", part.title))


def latex_text(text: object) -> str:
    """``text`` for LaTeX: special characters escaped, signs of mathematics in math mode."""
    return "".join(_SPECIAL.get(character, character) for character in str(text))


def latex(table: Table, label: str) -> str:
    """A table in LaTeX; it needs the package booktabs.

    Args:
        table: the table.
        label: for ``\\ref``.
    """
    columns = len(table.columns)
    form = "l" * columns if table.words else "l" + "r" * (columns - 1)
    caption = " ".join(part for part in (table.title, table.caption) if part)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(caption)}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{{form}}}",
        r"    \toprule",
        f"    {_row(table.columns, columns)}",
        r"    \midrule",
    ]
    for number, block in enumerate(table.blocks):
        if number:
            lines.append(r"    \addlinespace")
        if block.title:
            lines.append(rf"    \multicolumn{{{columns}}}{{l}}{{\emph{{{latex_text(block.title)}}}}} \\")
        lines += [f"    {_row(row.cells, columns)}" for row in block.rows]
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _row(cells, columns: int) -> str:
    padded = [*cells, *[""] * (columns - len(cells))]
    return " & ".join(latex_text(_line(cell)) for cell in padded) + r" \\"


def _line(text: object) -> str:
    """``text`` on one line; no-break spaces stay."""
    return re.sub(r"[\r\n\t]+", " ", str(text))


def markdown(table: Table) -> str:
    """A table in Markdown; headings of blocks are rows in bold."""
    columns = len(table.columns)
    right = [":--" if table.words or not number else "--:" for number in range(columns)]
    rows = [[_escaped(name) for name in table.columns], right]
    for block in table.blocks:
        if block.title:
            rows.append([f"**{_escaped(block.title)}**"])
        rows += [[_escaped(cell) for cell in row.cells] for row in block.rows]
    padded = ([*row, *[""] * (columns - len(row))] for row in rows)
    lines = [f"| {' | '.join(row)} |" for row in padded]
    return "\n".join([f"**{_escaped(table.title)}** {_line(table.caption)}".strip(), "", *lines]) + "\n"


def _escaped(text: object) -> str:
    """``text`` on one line with Markdown's special characters escaped."""
    return re.sub(r"([|\\<`*_])", r"\\\1", _line(text))
