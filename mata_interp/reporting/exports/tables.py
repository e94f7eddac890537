"""Tables of a page as LaTeX (booktabs), Markdown and CSV."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd

from ..parts import Table

__all__ = ["csv_text", "latex", "latex_text", "markdown", "table_csv", "table_files"]

NUMBER = re.compile(r"^Table \d+\. ")

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


def table_files(table: Table) -> dict[str, str]:
    """Name and text of a table in every form; the table has a name, and no number in its title."""
    table = replace(table, title=NUMBER.sub("", table.title))
    return {
        f"{table.name}.csv": table_csv(table),
        f"{table.name}.tex": latex(table, f"tab:{table.name.removeprefix('table-')}"),
        f"{table.name}.md": markdown(table),
    }


def csv_text(table: pd.DataFrame) -> str:
    """The text of a CSV file: numbers in full precision, an unknown one as an empty field."""
    return _encodable(table.to_csv(index=False, lineterminator="\n"))


def table_csv(table: Table) -> str:
    """A table as CSV: its cells as shown, then the numbers behind each row in full precision.

    Columns of such numbers are named ``exact_NAME``; they are fractions and nats, as ``data-NAME`` on a page.
    """
    rows = [(block.title, row) for block in table.blocks for row in block.rows]
    names = dict.fromkeys(name for _, row in rows for name, value in row.data.items() if _is_number(value))
    with_groups = any(title for title, _ in rows)
    columns = [*(["group"] if with_groups else []), *table.columns, *(f"exact_{name}" for name in names)]
    records = [
        [
            *([title] if with_groups else []),
            *(row.cells[n] if n < len(row.cells) else "" for n in range(len(table.columns))),
            *(row.data.get(name, "") for name in names),
        ]
        for title, row in rows
    ]
    return csv_text(pd.DataFrame(records, columns=columns))


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _encodable(text: str) -> str:
    """``text`` as it is read back from a file: what UTF-8 cannot encode is replaced."""
    return text.encode("utf-8", "replace").decode()


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
