"""Dose and response: the change at every strength, with a band that holds for all strengths together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from ..errors import FigureError, unknown_name
from ..experiments import Run
from ..interventions import AttentionEdit
from ..ranges import brief, layer_range, layers_in
from ..statistics import paired_effect, simultaneous_band
from ..statistics.options import is_correct
from ..statistics.options import margin as option_margin
from .canvas import current, draw_line, keep, wrong_type
from .colours import MARKERS, SOFT, Palette, line_colours
from .tooltips import ends, signed

__all__ = ["dose"]

SCORES = {
    "margin": "change of the log-probability difference, nats",
    "correct": "change in accuracy, percentage points",
}


def dose(
    results: xr.DataArray | Run,
    baseline: str = "baseline",
    *,
    score: str = "margin",
    level: float = 0.95,
    ax: Axes | None = None,
    palette: Palette = None,
) -> Axes:
    """Draw the change against a baseline at every strength alpha, one line for each edit.

    The band is simultaneous over the strengths of a line: for log-probability differences a max-T bootstrap
    over clips; for accuracies, of which few change at a weak dose, the intervals of
    `mata_interp.paired_effect` with Bonferroni's correction for the number of strengths. Alpha 0, where the
    change is 0, is drawn as well. Strengths are evenly spaced, as grids of strengths usually are not.

    Args:
        results: a sweep from `mata_interp.sweep`, or a run. Configurations or conditions that differ in alpha
            only are one line; those that are no single edit of attention are left out.
        baseline: name of the configuration or condition without intervention.
        score: ``"margin"``, the log-probability difference in nats, or ``"correct"``, in percentage points.
        level: coverage of the band, as a fraction.
        ax: where to draw; None: pyplot's current axes.
        palette: colours of the lines: a name or a list as in seaborn, or label -> colour.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers, in nats or as fractions.

    Raises:
        FigureError: there is no such score or baseline, there are fewer than two strengths of one edit, or
            ``results`` is something else.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[:12]
        >>> edits = {f"alpha {alpha}": mi.Mata(alpha, [4, 5, 6, 7]) for alpha in (0.5, 1.0, 2.0)}
        >>> swept = mi.sweep(lalm, items, {"baseline": None, **edits}, progress=False)
        >>> _, ax = plt.subplots()
        >>> mi.plot.data(mi.plot.dose(swept, ax=ax))["alpha"].tolist()
        [0.0, 0.5, 1.0, 2.0]
    """
    return draw_dose(current(ax), dose_table(results, baseline, score, level), score, palette)


def dose_table(
    results: xr.DataArray | Run, baseline: str = "baseline", score: str = "margin", level: float = 0.95
) -> pd.DataFrame:
    """The numbers of `dose`: alpha, value, low, high, n_items, n_clips and line, as fractions or nats."""
    if score not in SCORES:
        raise FigureError(unknown_name("score", score, SCORES))
    if isinstance(results, Run):
        values, edits = _of_run(results, baseline, score)
    elif isinstance(results, xr.DataArray):
        values, edits = _of_sweep(results, baseline, score)
    else:
        raise wrong_type(results, "dose", "a sweep from mi.sweep, or a run")
    lines = {str(label): part for label, part in edits.groupby("label", sort=False) if len(part) > 1}
    if not lines:
        raise FigureError("There are no two strengths of one edit, so there is no dose-response to draw.")
    tables = [
        _line(values, part.sort_values("alpha"), level, score).assign(line=label)
        for label, part in lines.items()
    ]
    return pd.concat(tables, ignore_index=True)


def draw_dose(ax: Axes, table: pd.DataFrame, score: str = "margin", palette: Palette = None) -> Axes:
    """Draw a `dose_table`: one line for each ``line``, strengths evenly spaced."""
    alphas = sorted({0.0, *table["alpha"].tolist()})
    scale = 100 if score == "correct" else 1
    lines = list(dict.fromkeys(table["line"]))
    for label, colour, marker in zip(lines, line_colours(lines, palette), MARKERS * 9, strict=False):
        part = table.loc[table["line"] == label]
        x = [alphas.index(alpha) for alpha in part["alpha"]]
        value, low, high = (scale * part[name].to_numpy() for name in ("value", "low", "high"))
        unit = "points" if score == "correct" else "nats"
        texts = [
            f"alpha {alpha:g}: {signed(mean)} {unit}{ends(a, b, signed)}"
            for alpha, mean, a, b in zip(part["alpha"], value, low, high, strict=True)
        ]
        draw_line(ax, x, value, low, high, colour=colour, marker=marker, label=label, texts=texts)
    ax.axhline(0, color=SOFT, linewidth=0.7, zorder=0)
    ax.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    ax.set(xlabel="alpha", ylabel=SCORES[score])
    ax.margins(y=0.1)
    if len(lines) > 1:
        ax.legend(frameon=False)
    return keep(ax, table)


@dataclass(frozen=True)
class Values:
    """The value of each item (rows) under each configuration (columns), and the items' clusters."""

    table: pd.DataFrame
    clusters: pd.Series
    baseline: str


def _line(values: Values, part: pd.DataFrame, level: float, score: str) -> pd.DataFrame:
    """Alpha, mean, low and high; the items are those with a value at every strength."""
    names = [values.baseline, *part["name"]]
    there = values.table[names].dropna()
    clusters = values.clusters.loc[there.index].tolist()
    before, after = np.asarray(there[values.baseline]), np.asarray(there[list(part["name"])])
    mean, low, high = (_accuracies if score == "correct" else _margins)(before, after, clusters, level)
    table = pd.DataFrame(
        {"alpha": part["alpha"].to_numpy(dtype=float), "value": mean, "low": low, "high": high}
    )
    if 0.0 not in set(table["alpha"]):
        zero = pd.DataFrame({"alpha": [0.0], "value": [0.0], "low": [0.0], "high": [0.0]})
        table = pd.concat([zero, table])
    table = table.assign(n_items=len(there), n_clips=len(set(clusters)))
    return table.sort_values("alpha", ignore_index=True)


def _margins(before: np.ndarray, after: np.ndarray, clusters: list, level: float) -> tuple[Any, Any, Any]:
    """Means and the simultaneous band; NaN with too few clips for one."""
    band = simultaneous_band(after - before[:, None], clusters, level)
    known = np.isfinite(band.critical)
    return band.mean, band.low if known else np.nan, band.high if known else np.nan


def _accuracies(before: np.ndarray, after: np.ndarray, clusters: list, level: float) -> tuple[Any, Any, Any]:
    """Differences of accuracies, with intervals at Bonferroni's level."""
    each = 1 - (1 - level) / after.shape[1]
    effects = [paired_effect(before, column, "binary", clusters, level=each) for column in after.T]
    mean, low, high = np.array([(one.difference, one.low, one.high) for one in effects]).T
    return mean, low, high


def _of_sweep(swept: xr.DataArray, baseline: str, score: str) -> tuple[Values, pd.DataFrame]:
    if not {"item", "configuration", "choice"} <= set(swept.dims):
        raise FigureError(f"plot.dose needs a sweep of items, and these are the dimensions {swept.dims}.")
    names = [str(name) for name in swept["configuration"].values]
    _known(baseline, names)
    swept = swept.transpose("item", "configuration", "choice")
    answer = swept["answer"].values[:, None]
    values = option_margin(swept.values, answer) if score == "margin" else is_correct(swept.values, answer)
    there = swept["answer"].values >= 0
    table = pd.DataFrame(values[there].astype(float), swept["item"].values[there], names)
    clusters = pd.Series(swept["cluster"].values[there], table.index)
    about = {
        key: swept[key].values for key in ("alpha", "layers", "group", "rule", "queries", "phase", "heads")
    }
    edits = pd.DataFrame({"name": names, **about})
    edits = edits.loc[(edits["name"] != baseline) & np.isfinite(edits["alpha"].astype(float))]
    return Values(table, clusters, baseline), _labelled(edits)


def _of_run(run: Run, baseline: str, score: str) -> tuple[Values, pd.DataFrame]:
    records = run.records.dropna(subset=["answer"])
    _known(baseline, list(run.conditions))
    table = records.pivot(index="item", columns="condition", values=score).astype(float)
    first = records.drop_duplicates("item")
    clusters = pd.Series(first["cluster"].tolist(), first["item"].tolist())
    rows = []
    for name, condition in run.conditions.items():
        if condition.audio != "own" or len(condition.interventions) != 1 or name not in table:
            continue
        edit = condition.interventions[0]
        if not isinstance(edit, AttentionEdit):
            continue
        about = {"layers": brief(edit.layers), "group": edit.keys, "rule": edit.rule, "queries": edit.queries}
        rows.append(
            {"name": name, "alpha": edit.alpha, **about, "phase": edit.phase, "heads": str(edit.heads)}
        )
    return Values(table, clusters, baseline), _labelled(pd.DataFrame(rows))


def _labelled(edits: pd.DataFrame) -> pd.DataFrame:
    """The edits with a label that names the settings in which they differ, strength aside."""
    if edits.empty:
        return edits.assign(label=[])
    settings = ("group", "layers", "rule", "queries", "phase", "heads")
    differing = [name for name in settings if len(set(edits[name].astype(str))) > 1] or ["group"]
    labels = [
        ", ".join(map(_setting, differing, row)) for row in edits[differing].astype(str).to_numpy().tolist()
    ]
    return edits.assign(label=labels)


def _setting(name: str, value: str) -> str:
    """``layers 4–7``, ``on text``, ``rule abs``."""
    if name == "group":
        return f"on {value}"
    return f"layers {layer_range(layers_in(value))}" if name == "layers" else f"{name} {value}"


def _known(baseline: str, names: list[str]) -> None:
    if baseline not in names:
        raise FigureError(unknown_name("baseline", baseline, names))
