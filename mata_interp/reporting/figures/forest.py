"""A forest plot: the change of each comparison, its interval, and the answers it corrected and broke.

`mata_interp.plot.effects` draws rows on axes that belong to its user, with labels as ticks. This draws a
whole figure: groups under headings, columns of numbers, and on a phone the text above each interval. The
layouts have nothing in common, so only the marks are shared (`plot.effects.draw_difference`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...plot.canvas import keep
from ...plot.effects import DifferenceStyle, draw_difference
from ...statistics import Effect
from ..wording import interval, known, points
from .palette import AUDIO, FAINT, INK, PAPER, SOFT


@dataclass(frozen=True)
class Row:
    """One comparison; ``estimate``, ``low`` and ``high`` are differences of accuracies, fractions or NaN.

    ``fixed`` and ``broken`` are None where answers are not counted.
    """

    label: str
    estimate: float
    low: float
    high: float
    n: int
    fixed: int | None
    broken: int | None
    style: str  # a key of STYLES


def effect_row(label: str, effect: Effect, style: str) -> Row:
    """The row of an effect on accuracy.

    Args:
        label: text at the left.
        effect: a binary effect.
        style: a key of `STYLES`.
    """
    return Row(
        label,
        effect.difference,
        effect.low,
        effect.high,
        effect.n,
        effect.fixed or 0,
        effect.broken or 0,
        style,
    )


@dataclass(frozen=True)
class Section:
    """Rows under one heading."""

    title: str
    rows: Sequence[Row]


STYLES = {
    "primary": DifferenceStyle(AUDIO, AUDIO, "D", 7, 2.2),
    "mata": DifferenceStyle(AUDIO, AUDIO, "o", 5, 1.2),
    "sham": DifferenceStyle("#7a7a7a", "white", "o", 5, 1.2),
}


def forest(
    sections: Sequence[Section],
    width: float,
    counted: tuple[str, str] = ("corrected", "broken"),
    label: str = "change in accuracy, percentage points",
) -> Figure:
    """Draw the rows of ``sections`` from top to bottom on one axis of percentage points.

    ``counted`` says what ``fixed`` and ``broken`` of the rows count; ``label`` is that of the axis.
    """
    narrow = width < 5
    pitch = 0.42 if narrow else 0.25  # in a narrow figure the text stands above the interval
    units = sum(1.15 + len(section.rows) for section in sections)
    height = pitch * units + (0.55 if narrow else 0.75)  # the axis below, the column heads above
    figure = Figure(figsize=(width, height))
    left, right = (0.03, 0.97) if narrow else (_LEFT, _RIGHT)
    axes = figure.add_axes((left, 0.5 / height, right - left, pitch * units / height))
    y, texts = 0.0, []
    for section in sections:
        texts.append((y + 0.75, section.title, None))
        y += 1.15
        for row in section.rows:
            _draw_row(axes, row, y + (0.72 if narrow else 0.5), counted)
            texts.append((y + (0.22 if narrow else 0.5), row.label, row))
            y += 1
    axes.set_ylim(units, 0)
    axes.axvline(0, color=SOFT, linewidth=0.8, zorder=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -2), max(high, 2))
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel(label)
    keep(axes, _table(sections, counted))
    for place, text, row in texts:
        _write(axes, place, text, row, narrow)
    if not narrow:
        for x, text in zip(_COLUMNS, ("points [95 % interval]", "n", " / ".join(counted)), strict=True):
            axes.text(_across(x), -0.35, text, transform=axes.get_yaxis_transform(), ha="right", color=SOFT)
    return figure


def _table(sections: Sequence[Section], counted: tuple[str, str]) -> pd.DataFrame:
    """The numbers that are drawn, as fractions."""
    rows = [
        (section.title, row.label, row.estimate, row.low, row.high, row.n, row.fixed, row.broken)
        for section in sections
        for row in section.rows
    ]
    names = [name.replace(" ", "_") for name in counted]
    columns = ["group", "label", "difference", "low", "high", "n", *names]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(names, "Int64"))


_LEFT, _RIGHT = 0.33, 0.625  # edges of the plot, as fractions of the figure width
_COLUMNS = (0.8, 0.85, 0.998)  # right edges of the columns of numbers


def _across(x: float) -> float:
    """A fraction of the figure width as a fraction of the plot width."""
    return (x - _LEFT) / (_RIGHT - _LEFT)


def _draw_row(axes: Axes, row: Row, y: float, counted: tuple[str, str]) -> None:
    numbers = [100 * value if known(value) else math.nan for value in (row.estimate, row.low, row.high)]
    draw_difference(axes, y, numbers[0], numbers[1], numbers[2], STYLES[row.style], _tip(row, counted))


def _tip(row: Row, counted: tuple[str, str]) -> str:
    value = f"{points(row.estimate)} points {interval(row.low, row.high)}"
    if row.fixed is None:
        return f"{row.label}: {value}; {row.n:,} items"
    return f"{row.label}: {value}; {row.fixed} {counted[0]}, {row.broken} {counted[1]} of {row.n:,}"


def _write(axes: Axes, y: float, text: str, row: Row | None, narrow: bool) -> None:
    across = axes.get_yaxis_transform()
    weight = "bold" if row is None or row.style == "primary" else "normal"
    colour = SOFT if row is not None and row.style == "sham" else INK
    indent = 0.0 if narrow else _across(0.0)
    style = {"transform": across, "va": "center", "weight": weight, "color": colour}
    if narrow:  # text covers the grid lines
        style["bbox"] = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5}
    axes.text(indent + (0 if row is None else 0.04), y, text, **style)
    if row is None:
        return
    value = f"{points(row.estimate)} {interval(row.low, row.high)}"
    if narrow:
        axes.text(1, y, value, ha="right", **style)
        return
    counts = "" if row.fixed is None else f"{row.fixed} / {row.broken}"
    for x, cell in zip(_COLUMNS, (value, f"{row.n:,}", counts), strict=True):
        axes.text(_across(x), y, cell, ha="right", **style)
