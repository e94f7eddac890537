"""The margin of each item without and with MATA: that of `mata_interp.plot.margins` in the page's size."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ...plot.items import draw_margins

LABELS = ("margin without MATA, nats", "margin with MATA, nats")


def margins(before: pd.Series, after: pd.Series, width: float) -> Figure:
    """Scatter ``after`` over ``before``: margins in nats, by item id."""
    side = min(width, 4.4)
    figure = Figure(figsize=(side, side))
    draw_margins(figure.subplots(), before, after, LABELS)
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.12, top=0.98)
    return figure
