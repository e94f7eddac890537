"""Dose and response on the selection clips: the margin of the chosen layers at every alpha."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import MataError
from ..experiments.choosing import BASELINE
from ..experiments.selection import read_sweep
from ..experiments.study_plan import SWEEP
from ..experiments.study_result import Selection
from ..ranges import brief
from ..statistics import simultaneous_band, trend_test
from ..sweeps import margin
from .figures.dose_response import dose_response
from .figures.svg import responsive
from .parts import Content, FigurePart
from .wording import count, named_layers, p_value, printable

__all__ = ["dose_response_content"]


def dose_response_content(folder: Path | None, selection: Selection) -> list[Content]:
    """The figure, or a notice where the sweep cannot be read; nothing with fewer than two alphas."""
    chosen = selection.chosen
    alphas = sorted({row.alpha for row in selection.grid if row.layers == chosen.layers})
    if folder is None or len(alphas) < 2:
        return []
    if not (folder / SWEEP).exists():
        return [("notice", f"The dose-response curve is not shown: {SWEEP} is not in the folder.")]
    try:
        margins = margin(read_sweep(folder / SWEEP))
    except MataError as error:
        return [("notice", printable(f"The dose-response curve is not shown. {error}", 300))]
    names = _names(margins, chosen.layers, alphas)
    values = margins.sel(configuration=[BASELINE, *names]).values
    there = np.isfinite(values).all(1)  # a coarse search tries not all on all
    if len(names) != len(alphas) or there.sum() < 4:
        return []
    change, clusters = values[there] - values[there, :1], margins["cluster"].values[there].tolist()
    band = simultaneous_band(change[:, 1:], clusters)
    slope, p = trend_test(change, clusters)
    direction = "rises" if slope > 0 else "falls"
    trend = f"It {direction} with alpha" if p < 0.05 else "No trend over alpha is detectable"
    at = alphas.index(chosen.alpha)
    figure = FigurePart(
        "dose-response",
        responsive(
            lambda width: dose_response(alphas, band.mean, band.low, band.high, at, width),
            "dose-response",
            "Change of the margin by alpha",
        ),
        "Dose and response.",
        f"Change of the mean margin by alpha in {named_layers(chosen.layers)}, with a simultaneous 95 % "
        f"band over all alphas; {count(int(there.sum()), 'item')} of the selection clips. {trend} "
        f"(sign-flip test, p {p_value(p)}). Layers were chosen on these items, so the level is optimistic.",
    )
    return [("figure", figure)]


def _names(margins, layers: tuple[int, ...], alphas: list[float]) -> list[str]:
    """The configurations of the sweep that edit these layers, in order of alpha."""
    same = [str(name) == brief(layers) for name in margins["layers"].values]
    found = {
        float(alpha): str(name)
        for alpha, name, is_same in zip(
            margins["alpha"].values, margins["configuration"].values, same, strict=True
        )
        if is_same and name != BASELINE
    }
    return [found[alpha] for alpha in alphas if alpha in found]
