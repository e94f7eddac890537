"""A share by layer with its interval, of several runs on one scale.

`mata_interp.plot.share` draws one trace over its layers; this draws intervals that are known already, of runs
whose models may differ in their layers, over depth. Both draw their lines with `plot.canvas.draw_line`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...plot.canvas import draw_line, keep
from ...plot.colours import MARKERS, line_colours
from ...plot.tooltips import ends, percent

AUDIO_SHARE = "Audio share: audio / (audio + text), without sink, %"


@dataclass(frozen=True, eq=False)
class Share:
    """One run: fractions by layer, with the ends of their intervals."""

    label: str
    layers: Sequence[int]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def shares(runs: Sequence[Share], width: float, title: str = AUDIO_SHARE) -> Figure:
    """Draw a line with a band for each run, over layers; over depth where the numbers of layers differ."""
    by_depth = len({tuple(run.layers) for run in runs}) > 1
    narrow = width < 5
    figure = Figure(figsize=(width, 3.0 + (0.2 * len(runs) if narrow else 0)))
    axes = figure.subplots()
    colours = line_colours([run.label for run in runs], None)
    for run, colour, marker in zip(runs, colours, MARKERS * 9, strict=False):
        last = max(len(run.layers) - 1, 1)
        x = np.arange(len(run.layers)) / last if by_depth else np.asarray(run.layers)
        texts = [
            f"{run.label}, layer {layer}: {percent(mean)} %{ends(low, high, percent)}"
            for layer, mean, low, high in zip(run.layers, run.mean, run.low, run.high, strict=True)
        ]
        draw_line(
            axes, x, 100 * run.mean, 100 * run.low, 100 * run.high,
            colour=colour, marker=marker, label=run.label, texts=texts,
        )  # fmt: skip
        keep(axes, pd.DataFrame({
            "run": run.label, "layer": run.layers, "value": run.mean, "low": run.low, "high": run.high
        }))  # fmt: skip
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if not by_depth:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title, pad=6)
    axes.set_xlabel("depth: first layer 0, last layer 1" if by_depth else "layer")
    if narrow:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2))
    else:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    below = 0.55 + (0.24 * len(runs) if narrow else 0)
    right = 0.97 if narrow else 0.7
    figure.subplots_adjust(left=0.42 / width, right=right, bottom=below / figure.get_figheight(), top=0.9)
    return figure
