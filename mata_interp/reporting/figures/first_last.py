"""Causal maps of windows: `mata_interp.plot.windows` at every strength, on one scale below all maps."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...plot import windows
from ...plot.maps import sets_of
from ...plot.tooltips import tip
from ..wording import named_layers, number
from .scale import change_scale, footer_height, robust_limit

LEFT, GAP = 0.55, 0.3  # inches
SIDE = 2.3  # of the largest map, inches
MOST_CELLS = 3000  # of all maps together; more are drawn as images, without tooltips

Chosen = tuple[tuple[int, ...], float]
"""The layers and the alpha of a configuration."""


def first_last(
    causal_map: xr.DataArray, chosen: Chosen | None, width: float, details: xr.DataArray | None = None
) -> Figure:
    """Draw one square map per alpha: the first layer of a window across, its last layer up.

    Args:
        causal_map: ``[layers, alpha]``, nats, as from `mata_interp.causal_map`; NaN for windows that were not
            tried.
        chosen: layers and alpha of the cell to outline, or None.
        width: of the figure, inches.
        details: a further line of each cell's tooltip, text in the shape of ``causal_map``.
    """
    alphas = [float(alpha) for alpha in causal_map["alpha"].values]
    across = max(1, min(len(alphas), int((width - LEFT + GAP) // (1.35 + GAP))))
    across = -(-len(alphas) // -(-len(alphas) // across))  # lines of equal length
    side = min(SIDE, (width - LEFT - 0.1 + GAP) / across - GAP)
    pitch = side + 0.62  # a map with its title and ticks
    height = 0.08 + -(-len(alphas) // across) * pitch + 0.18 + footer_height("")
    figure = Figure(figsize=(width, height))
    bound = robust_limit(causal_map.values)
    for n, alpha in enumerate(alphas):
        line, column = divmod(n, across)
        corner = LEFT + column * (side + GAP), height - 0.08 - line * pitch - 0.24 - side
        axes = figure.add_axes((corner[0] / width, corner[1] / height, side / width, side / height))
        axes.set_label(f"alpha {alpha:g}")
        frame = chosen[0] if chosen is not None and chosen[1] == alpha else None
        windows(causal_map, alpha=alpha, chosen=frame, colorbar=False, limit=bound, ax=axes)
        axes.set(xlabel="first layer" if n + across >= len(alphas) else "")  # where nothing is below
        axes.set_ylabel("last layer" if column == 0 else "")
        axes.set_title(f"alpha {alpha:g}", pad=4)
        if details is not None:
            _explain(axes, causal_map.sel(alpha=alpha), details.sel(alpha=alpha))
        if int(np.isfinite(causal_map.values).sum()) > MOST_CELLS:
            axes.collections[0].set_rasterized(True)
    lowest = float(np.nanmin(causal_map.values, initial=0))
    change_scale(figure, bound, LEFT, beyond=lowest < -bound)
    return figure


def _explain(axes: Axes, change: xr.DataArray, details: xr.DataArray) -> None:
    """Tooltips of two lines for the cells, which `windows` draws in the order of the map."""
    alpha = change["alpha"].item()
    texts = [
        f"{named_layers(layers)}, alpha {alpha:g}: {number(value, 2, sign=True)} nats\n{more}"
        for layers, value, more in zip(
            sets_of(change), change.values.tolist(), details.values.tolist(), strict=True
        )
        if np.isfinite(value)
    ]
    tip(axes.collections[0], *texts)
