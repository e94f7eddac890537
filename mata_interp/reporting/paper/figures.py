"""The figures of a run for a paper: vector files, and the numbers drawn as CSV."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ... import plotting as plot
from ...errors import MataError
from ...experiments import Run
from ...experiments.selection import read_sweep
from ...experiments.study_plan import SWEEP
from ...experiments.study_result import Selection
from ...fusion import FusionProfile
from ...ranges import brief
from ..comparisons import Comparisons
from ..figures.palette import RC

__all__ = ["PaperFigure", "figures_of", "write_figures"]

WIDTH, HEIGHT = 5.5, 2.8  # inches: the text of a page in the usual templates
PROFILE = "layers.json"

Save = Callable[[str, bytes], None]


@dataclass(frozen=True)
class PaperFigure:
    """One figure: the name of its files, and a function that draws it on axes of its own."""

    name: str
    draw: Callable[[Axes], object]
    height: float = HEIGHT


def write_figures(run: Run, save: Save) -> None:
    """Write every figure of a run as SVG and PDF, and its numbers as CSV.

    Args:
        run: the run.
        save: takes a file's name and content.
    """
    for each in figures_of(run):
        style = {**RC, "svg.hashsalt": each.name, "pdf.fonttype": 42}
        with matplotlib.style.context(style, after_reset=True):  # whatever style the user has set
            figure = Figure(figsize=(WIDTH, each.height), layout="constrained")
            ax = figure.subplots()
            each.draw(ax)
            for form, metadata in (("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
                stream = io.BytesIO()
                figure.savefig(stream, format=form, metadata=metadata)
                save(f"{each.name}.{form}", stream.getvalue())
        save(f"{each.name}.csv", plot.data(ax).to_csv(index=False).encode())


def figures_of(run: Run) -> Iterator[PaperFigure]:
    """The figures that a run has the data for."""
    if run.trace is not None:
        yield from _of_trace(run.trace, _window(run))
    yield from _of_answers(run)
    if run.study is not None:
        yield from _of_selection(run.path, run.study.selection)
    if run.path is not None and (run.path / PROFILE).exists():
        profile = FusionProfile.load(run.path / PROFILE)
        yield PaperFigure("layer-share", lambda ax: plot.profile(profile, ax=ax))
        for name in profile.windows:
            yield PaperFigure(
                f"layer-criterion-{name.replace('_', '-')}",
                lambda ax, name=name: plot.profile(profile, name, ax=ax),
            )


def _window(run: Run) -> tuple[int, ...]:
    """The layers that MATA edits."""
    return () if run.study is None else run.study.selection.chosen.layers


def _of_trace(trace: xr.Dataset, window: tuple[int, ...]) -> Iterator[PaperFigure]:
    captions = trace["condition"].values.astype(str) if "condition" in trace.coords else []
    by = "condition" if len(set(captions)) > 1 else None
    tall = min(1.2 + 0.17 * trace.sizes["layer"], 6.5)
    yield PaperFigure("audio-share", lambda ax: plot.share(trace, by=by, window=window, ax=ax))
    yield PaperFigure("token-groups", lambda ax: plot.groups(trace, window=window, ax=ax))
    yield PaperFigure("heads", lambda ax: plot.heads(trace, window=window, ax=ax), tall)


def _of_answers(run: Run) -> Iterator[PaperFigure]:
    titles = {"correct": "change-in-accuracy", "margin": "change-of-log-probability-difference"}
    before, after = "baseline", "mata"
    for score, title in titles.items():
        table = _comparisons(run, score)
        if table is not None and len(table):
            yield PaperFigure(
                title, lambda ax, table=table: plot.effects(table, ax=ax), 0.7 + 0.24 * len(table)
            )
    if run.effects is not None and run.effects.primary is not None:
        before, after = run.effects.primary.comparison.before, run.effects.primary.comparison.after
    if {before, after} <= set(run.conditions) and _has_margins(run.records, before, after):
        yield PaperFigure("items", lambda ax: plot.margins(run, before, after, ax=ax), 3.6)


def _has_margins(records: pd.DataFrame, before: str, after: str) -> bool:
    with_margin = records.dropna(subset=["margin"])
    return all((with_margin["condition"] == name).any() for name in (before, after))


def _comparisons(run: Run, score: str) -> pd.DataFrame | None:
    """The comparisons of a study as on its page; of a plain run, each condition against its baseline."""
    if run.effects is not None and run.effects.primary is not None:
        return _of_study(Comparisons(run.effects, run.conditions), score)
    finished = run.records.dropna(subset=["answer", score])
    others = [name for name in run.conditions if name != "baseline"]
    if "baseline" not in run.conditions or not others or run.missing or finished.empty:
        return None
    try:
        return run.compare(score=score)  # type: ignore[arg-type]
    except MataError:  # answered under one of the conditions only
        return None


def _of_study(comparisons: Comparisons, score: str) -> pd.DataFrame:
    rows = [
        {
            "label": member.label,
            "kind": member.result.effect.kind,
            **{name: getattr(member.result.effect, name) for name in ("difference", "low", "high", "n", "p")},
            "control": member.look == "sham",
        }
        for group in comparisons.groups(score)
        for member in group.members
    ]
    return pd.DataFrame(rows)


def _of_selection(folder: Path | None, selection: Selection) -> Iterator[PaperFigure]:
    """Every window that the study tried, and the strengths of the chosen one."""
    causal_map = _grid(selection)
    if causal_map is not None:
        chosen = selection.chosen
        for alpha in causal_map["alpha"].values.tolist():
            frame = chosen.layers if alpha == chosen.alpha else None
            yield PaperFigure(
                f"windows-alpha-{alpha:g}",
                lambda ax, alpha=alpha, frame=frame: plot.windows(
                    causal_map, alpha=alpha, chosen=frame, ax=ax
                ),
                3.8,
            )
    swept = _sweep_of_chosen(folder, selection)
    if swept is not None:
        yield PaperFigure(
            "dose-response", lambda ax: plot.dose(swept, str(swept["configuration"].values[0]), ax=ax)
        )


def _grid(selection: Selection) -> xr.DataArray | None:
    """The configurations that were tried, as a causal map; None for a single set of layers."""
    if len({row.layers for row in selection.grid}) < 3:
        return None
    sets = sorted({row.layers for row in selection.grid}, key=lambda layers: (len(layers), layers))
    alphas = sorted({row.alpha for row in selection.grid})
    names = [brief(layers) for layers in sets]
    causal_map = xr.DataArray(
        float("nan"), {"layers": names, "alpha": alphas}, ("layers", "alpha"), "change of margin"
    )
    for row in selection.grid:
        change = row.margin - selection.baseline.margin
        causal_map.loc[{"layers": brief(row.layers), "alpha": row.alpha}] = change
    neighbours = sorted({layer for layers in sets for layer in layers})
    is_window = all(
        tuple(neighbours[neighbours.index(layers[0]) :][: len(layers)]) == layers for layers in sets
    )
    return causal_map if is_window else None


def _sweep_of_chosen(folder: Path | None, selection: Selection) -> xr.DataArray | None:
    """The sweep of the chosen layers at every strength; None where there are fewer than two."""
    if folder is None or not (folder / SWEEP).exists():
        return None
    swept = read_sweep(folder / SWEEP)
    unedited = ~pd.notna(swept["alpha"].values)
    same = swept["layers"].values.astype(str) == brief(selection.chosen.layers)
    if unedited.sum() != 1 or same.sum() < 2:
        return None
    return swept.isel(configuration=[*unedited.nonzero()[0], *(same & ~unedited).nonzero()[0]])
