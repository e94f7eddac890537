"""Accuracy of several runs on one scale: without and with an intervention, and chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...plot.canvas import keep
from ...plot.tooltips import tip
from ..wording import known, percent
from .palette import AUDIO, FAINT, INK, PAPER, SOFT


@dataclass(frozen=True)
class Level:
    """One run on some items; fractions, NaN where not known."""

    label: str
    before: float
    after: float
    chance: float
    n: int


@dataclass(frozen=True)
class LevelGroup:
    """Runs on the same kind of items."""

    title: str
    rows: Sequence[Level]


_LEFT, _RIGHT = 0.33, 0.78  # edges of the plot, as fractions of the figure width


def levels(groups: Sequence[LevelGroup], width: float) -> Figure:
    """Draw a line from the accuracy before (hollow) to that after (filled) for each run, group by group."""
    narrow = width < 5
    pitch = 0.42 if narrow else 0.25  # in a narrow figure the text stands above the marks
    units = sum(1.15 + len(group.rows) for group in groups)
    height = pitch * units + 0.6
    figure = Figure(figsize=(width, height))
    left, right = (0.03, 0.97) if narrow else (_LEFT, _RIGHT)
    axes = figure.add_axes((left, 0.5 / height, right - left, pitch * units / height))
    y = 0.0
    for group in groups:
        _write(axes, y + 0.75, group.title, "", narrow, bold=True)
        y += 1.15
        for row in group.rows:
            _draw(axes, row, y + (0.68 if narrow else 0.5), 0.13 if narrow else 0.24)
            _write(axes, y + (0.22 if narrow else 0.5), row.label, _value(row), narrow)
            y += 1
    axes.set(ylim=(units, 0), xlim=(0, 100), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel("accuracy, %")
    rows = [
        (group.title, row.label, row.before, row.after, row.chance, row.n)
        for group in groups
        for row in group.rows
    ]
    keep(axes, pd.DataFrame(rows, columns=["items", "run", "before", "after", "chance", "n"]))
    return figure


def _value(row: Level) -> str:
    known_values = [percent(value) for value in (row.before, row.after) if known(value)]
    return " \u2192 ".join(known_values)


def _draw(axes: Axes, row: Level, y: float, half: float) -> None:
    """The marks of a row at ``y``; ``half`` is that of the height of the line at chance."""
    text = f"{row.label}: {_value(row)} of {row.n:,}; chance {percent(row.chance)}"
    if known(row.chance):
        line = axes.plot([100 * row.chance] * 2, [y - half, y + half], color=SOFT, linewidth=1.2)[0]
        tip(line, f"{row.label}: chance {percent(row.chance)}")
    if known(row.before) and known(row.after):
        ends = [100 * row.before, 100 * row.after]
        tip(axes.plot(ends, [y, y], color=AUDIO, linewidth=1.6, solid_capstyle="butt")[0], text)
    for value, fill in ((row.before, PAPER), (row.after, AUDIO)):
        if known(value):
            mark = {"marker": "o", "markersize": 5.5, "markeredgewidth": 1.3, "linewidth": 0, "zorder": 3,
                    "clip_on": False}  # fmt: skip
            tip(axes.plot(100 * value, y, color=AUDIO, markerfacecolor=fill, **mark)[0], text)


def _write(axes: Axes, y: float, label: str, value: str, narrow: bool, bold: bool = False) -> None:
    indent = 0.0 if narrow else -_LEFT / (_RIGHT - _LEFT)
    style = {
        "transform": axes.get_yaxis_transform(), "va": "center", "color": INK,
        "weight": "bold" if bold else "normal",
    }  # fmt: skip
    if narrow:  # text covers the grid lines
        style["bbox"] = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5}
    axes.text(indent + (0 if bold else 0.04), y, label, **style)
    end = 1.0 if narrow else (0.998 - _LEFT) / (_RIGHT - _LEFT)
    axes.text(end, y, value, ha="right", **style)
