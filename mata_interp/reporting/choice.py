"""The section on how layers and alpha were chosen: on other clips than those they were tested on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .figures.grid import grid
from .figures.svg import responsive
from .parts import Content, FigurePart, Section
from .wording import count, layer_range, named_layers, number, percent, printable


def choice_section(study: Mapping[str, Any]) -> Section:
    """The selection grid and the reason given with it."""
    selection, test = study["selection"], study["test"]
    text = (
        f"Layers and strength were chosen on {count(selection['clips'], 'clip')} and tested on "
        f"{count(test['clips'], 'other clip')} ({count(test['items'], 'item')}); no clip is in both. "
    )
    content: list[Content] = [("text", text + printable(selection["reason"]))]
    if selection["grid"]:
        content.append(("figure", _grid_figure(selection)))
    return Section("choice", "How layers and alpha were chosen", content)


def _grid_figure(selection: Mapping[str, Any]) -> FigurePart:
    table, base, chosen = selection["grid"], selection["baseline"], selection["chosen"]
    cells, rows, columns = _cells(table, base["margin"])
    names = [layer_range(row) for row in rows], [_column(column, columns) for column in columns]
    place = _find(rows, columns, chosen)
    return FigurePart(
        "grid",
        responsive(lambda width: grid(cells, *names, place, width), "grid", "Margin by layers and alpha"),
        "What was tried on the selection clips.",
        f"Mean margin of {count(base['n'], 'item')} minus the baseline's ({number(base['margin'])} nats, "
        f"accuracy {percent(base['accuracy'])}). Framed: the choice, {named_layers(chosen['layers'])} "
        f"at alpha {chosen['alpha']:g} with rule {printable(chosen['rule'])}. The best of "
        f"{count(len(table), 'configuration')} looks better here than it is; the test clips count.",
    )


Column = tuple[str, float]


def _cells(
    table: list[Mapping[str, Any]], base: float
) -> tuple[np.ndarray, list[tuple[int, ...]], list[Column]]:
    rows = sorted({tuple(c["layers"]) for c in table}, key=lambda layers: (len(layers), layers))
    columns = sorted({(c["rule"], float(c["alpha"])) for c in table})
    cells = np.full((len(rows), len(columns)), np.nan)
    for c in table:
        margin = np.nan if c["margin"] is None else c["margin"] - base
        cells[rows.index(tuple(c["layers"])), columns.index((c["rule"], float(c["alpha"])))] = margin
    return cells, rows, columns


def _find(
    rows: list[tuple[int, ...]], columns: list[Column], chosen: Mapping[str, Any]
) -> tuple[int, int] | None:
    row, column = tuple(chosen["layers"]), (chosen["rule"], float(chosen["alpha"]))
    return (rows.index(row), columns.index(column)) if row in rows and column in columns else None


def _column(column: Column, columns: list[Column]) -> str:
    rule, alpha = column
    return f"{alpha:g}" if len({name for name, _ in columns}) == 1 else f"{rule} {alpha:g}"
