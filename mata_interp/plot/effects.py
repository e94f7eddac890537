"""Forest plots: a difference and its interval for each comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..errors import FigureError, unknown_name
from ..experiments import Effects, Run
from ..statistics import Effect
from .canvas import current, keep, wrong_type
from .colours import AUDIO, FAINT, SOFT, Palette, line_colours
from .tooltips import tip

__all__ = ["effects"]

SCORES = ("correct", "official", "margin", "correct_normalised", "margin_normalised")
UNITS = {
    "binary": "change in accuracy, percentage points",
    "margin": "change of the log-probability difference, nats",
}
NUMBERS = ("difference", "low", "high")
TAKES = "a run, the effects of a study, a table from run.compare(), or name -> mi.paired_effect(...)"


def effects(
    results: Run | Effects | pd.DataFrame | Mapping[str, Effect] | Effect,
    *,
    score: str = "correct",
    by: str | None = None,
    numbers: bool = True,
    ax: Axes | None = None,
    palette: Palette = None,
) -> Axes:
    """Draw a forest plot: one row for each comparison, with its difference and 95 % interval.

    Accuracies are drawn in percentage points, log-probability differences in nats. Controls, where the
    effects of a study name them, have hollow grey markers.

    Args:
        results: a run, each condition of which is compared with its condition ``baseline``; the effects of a
            study (``run.effects``); a table from ``run.compare()``; or label -> effect.
        score: of a run or a study, what is compared: ``"correct"``, ``"official"``, ``"margin"``, or the
            first and the third with ``"_normalised"``.
        by: of a run, a column of its records: one row for each of its values.
        numbers: whether to write difference and interval beside each row.
        ax: where to draw; None: pyplot's current axes.
        palette: the colours of the rows, as a list, or label -> colour.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers, as fractions or nats.

    Raises:
        FigureError: there is no comparison, accuracies and log-probability differences are mixed, or
            ``results`` is something else.
        ArgumentError: the run cannot be compared, as it has no condition ``baseline`` or is not finished.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> effect = mi.paired_effect([0, 0, 1, 0, 0, 1], [1, 1, 1, 1, 0, 0])
        >>> _, ax = plt.subplots()
        >>> ax = mi.plot.effects({"MATA": effect}, ax=ax)
        >>> ax.get_xlabel()
        'change in accuracy, percentage points'
    """
    if score not in SCORES:
        raise FigureError(unknown_name("score", score, SCORES))
    table = _table(results, score, by)
    if table.empty:
        raise FigureError(f"There is no comparison of {score!r} to draw.")
    kinds = set(table["kind"])
    if len(kinds) > 1:
        raise FigureError(
            "Accuracies and log-probability differences have no axis in common: draw each by itself."
        )
    ax = current(ax)
    scale = 100 if kinds == {"binary"} else 1
    colours = line_colours(list(table["label"]), palette) if palette is not None else None
    for y, row in enumerate(_rows(table)):
        colour = colours[y] if colours else SOFT if row.control else AUDIO
        style = DifferenceStyle(colour, "white" if row.control else colour)
        draw_difference(ax, y, scale * row.difference, scale * row.low, scale * row.high, style)
        if numbers:
            _write(ax, y, row, scale)
    ax.axvline(0, color=SOFT, linewidth=0.8, zorder=0)
    ax.grid(axis="x", color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.set_yticks(range(len(table)), table["label"], parse_math=False)
    ax.tick_params(left=False)
    ax.spines[["left", "top", "right"]].set_visible(False)
    ax.set(ylim=(len(table) - 0.5, -0.5), xlabel=UNITS[kinds.pop()])
    ax.margins(x=0.08)
    return keep(ax, table)


@dataclass(frozen=True)
class DifferenceStyle:
    """How a difference and its interval look: colours of line and marker, sizes in points."""

    colour: Any
    face: Any
    marker: str = "o"
    size: float = 5.5
    linewidth: float = 1.6


def draw_difference(
    ax: Axes, y: float, difference: float, low: float, high: float, style: DifferenceStyle, text: str = ""
) -> None:
    """Draw one row of a forest plot: the interval as a line, the difference as a marker; NaN is not drawn.

    Args:
        ax: the axes.
        y: place of the row.
        difference, low, high: in the unit of the axes.
        style: how both look.
        text: for the tooltips of a page.
    """
    marks = []
    if np.isfinite(low) and np.isfinite(high):
        line = {"color": style.colour, "linewidth": style.linewidth, "solid_capstyle": "butt"}
        marks += ax.plot([low, high], [y, y], **line)
    if np.isfinite(difference):
        look = {"color": style.colour, "markerfacecolor": style.face, "markersize": style.size}
        marks += ax.plot(difference, y, style.marker, **look, markeredgewidth=1.2, zorder=3)
    for mark in marks if text else ():
        tip(mark, text)


@dataclass(frozen=True)
class Row:
    """One row of the plot."""

    difference: float
    low: float
    high: float
    control: bool


def _rows(table: pd.DataFrame) -> list[Row]:
    rows = table[[*NUMBERS, "control"]].to_numpy().tolist()
    return [Row(float(value), float(low), float(high), bool(control)) for value, low, high, control in rows]


def _write(ax: Axes, y: int, row: Row, scale: float) -> None:
    """Difference and interval beside the row."""
    if not np.isfinite(row.difference):
        return
    form = "+.1f" if scale == 100 else "+.2f"
    text = format(scale * row.difference, form)
    if np.isfinite(row.low):
        text += f" [{scale * row.low:{form}}, {scale * row.high:{form}}]"
    text = text.replace("-", "\N{MINUS SIGN}")
    ax.annotate(
        text, (1, y), (6, 0), ax.get_yaxis_transform(), "offset points", va="center", fontsize="small"
    )


# ----------------------------------------------------------------------------------------------------- tables
def _table(results: Any, score: str, by: str | None) -> pd.DataFrame:
    """One row for each comparison: label, kind, difference, low, high, n, control."""
    if isinstance(results, Run):
        results = results.compare(score=score, by=by)  # type: ignore[arg-type]
    elif by is not None:
        raise FigureError(
            "by= is for a run: compare by a column first, run.compare(by=...), and draw the table."
        )
    if isinstance(results, Effects):
        return _of_study(results, score)
    if isinstance(results, pd.DataFrame):
        return _of_comparisons(results)
    if isinstance(results, Effect):
        results = {"effect": results}
    if isinstance(results, Mapping) and all(isinstance(effect, Effect) for effect in results.values()):
        return _of_effects(list(results.items()))
    raise wrong_type(results, "effects", TAKES)


def _of_study(results: Effects, score: str) -> pd.DataFrame:
    rows = [result for result in results if result.comparison.column == score]
    labels = [
        _label(result.comparison.after, result.comparison.before, result.comparison.subset) for result in rows
    ]
    table = _of_effects([(label, result.effect) for label, result in zip(labels, rows, strict=True)])
    return table.assign(control=[result.comparison.family == "sham" for result in rows])


def _label(after: str, before: str, subset: Mapping[str, str]) -> str:
    against = "" if before == "baseline" else f" vs {before}"
    return f"{after}{against}, {', '.join(subset.values()) or 'all items'}"


def _of_comparisons(comparisons: pd.DataFrame) -> pd.DataFrame:
    if missing := [name for name in NUMBERS if name not in comparisons]:
        raise FigureError(f"The table has no column {missing[0]!r}: give {TAKES}.")
    table = comparisons.copy()
    if "label" not in table:
        if "condition" not in table:
            raise FigureError("The table has neither 'label' nor 'condition', which name its rows.")
        strata = _strata(comparisons)
        labels = [", ".join(map(str, row)) for row in table[["condition", *strata]].itertuples(index=False)]
        table["label"] = labels
    if "kind" not in table:
        table["kind"] = (
            "margin" if str(comparisons.attrs.get("score", "correct")).startswith("margin") else "binary"
        )
    if "control" not in table:
        table["control"] = False
    about = [name for name in ("n", "fixed", "broken", "p", "p_adjusted") if name in table]
    return table.loc[:, ["label", "kind", *NUMBERS, *about, "control"]].reset_index(drop=True)


def _strata(comparisons: pd.DataFrame) -> Sequence[str]:
    """The column that `Run.compare` adds with ``by``: it stands between ``baseline`` and ``n``."""
    columns = list(comparisons.columns)
    if not {"baseline", "n"} <= set(columns):
        return []
    return columns[columns.index("baseline") + 1 : columns.index("n")]


def _of_effects(pairs: Sequence[tuple[str, Effect]]) -> pd.DataFrame:
    rows = [
        {
            "label": label,
            "kind": effect.kind,
            **{name: getattr(effect, name) for name in NUMBERS},
            "n": effect.n,
            "p": effect.p,
            "control": False,
        }
        for label, effect in pairs
    ]
    return pd.DataFrame(rows, columns=["label", "kind", *NUMBERS, "n", "p", "control"])
