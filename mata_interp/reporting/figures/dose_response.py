"""The response at every dose: the figure of `mata_interp.plot.dose` with the chosen strength marked."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ...plot.doses import draw_dose
from .palette import SOFT
from .scale import LABEL


def dose_response(table: pd.DataFrame, chosen: float, width: float) -> Figure:
    """Draw the change at every strength with its simultaneous band.

    Args:
        table: from `plot.doses.dose_table`, of one edit, in nats.
        chosen: the strength alpha to mark.
        width: of the figure, inches.
    """
    figure = Figure(figsize=(min(width, 5.2), 2.7))
    axes = figure.subplots()
    draw_dose(axes, table)
    axes.set_ylabel(LABEL)
    at = table["alpha"].tolist().index(chosen)
    place = at, float(table["value"].iloc[at])
    axes.plot(*place, "o", markersize=10, markerfacecolor="none", markeredgecolor=SOFT, zorder=4)
    axes.annotate(
        "chosen",
        place,
        (-8, 4),
        textcoords="offset points",
        color=SOFT,
        ha="right",
        va="bottom",
        fontsize=7.5,
    )
    axes.margins(y=0.15)
    figure.subplots_adjust(left=0.6 / figure.get_figwidth(), right=0.98, bottom=0.2, top=0.96)
    return figure
