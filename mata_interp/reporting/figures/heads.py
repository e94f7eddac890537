"""The change that one edit makes in each head alone, as layers x heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from ..wording import number
from .palette import CHANGE_MAP
from .scale import change_scale, footer_height, largest

ABSENT = "#e8e8e8"  # a head that the layer does not have


def heads(change: np.ndarray, layers: Sequence[int], title: str, width: float, note: str = "") -> Figure:
    """Draw ``change`` [layer, head] in nats, the first layer at the bottom; NaN for absent heads."""
    n_layers, n_heads = change.shape
    across = (width - 0.65) / n_heads
    numbers = across > 0.4 and n_layers <= 24
    tall = min(max(0.26 if numbers else 0.16, 1.2 / n_layers), 6.0 / n_layers) * n_layers
    below = 0.42 + footer_height(note)
    height = tall + below + 0.3
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.5 / width, below / height, 1 - 0.65 / width, tall / height))
    axes.set_facecolor(ABSENT)
    bound = largest(change)
    texts = [[number(v, 2, sign=True) if np.isfinite(v) else "" for v in row] for row in change]
    sns.heatmap(
        change,
        ax=axes,
        cmap=CHANGE_MAP,
        vmin=-bound,
        vmax=bound,
        annot=np.array(texts) if numbers else False,
        fmt="",
        annot_kws={"fontsize": 7},
        cbar=False,
        linewidths=0.5 if change.size <= 600 else 0,
        linecolor="white",
        rasterized=change.size > 600,
    )
    axes.invert_yaxis()
    step = max(1, -(-n_heads // max(2, int((width - 0.65) / 0.25))))
    axes.set_xticks(np.arange(0, n_heads, step) + 0.5, [str(h) for h in range(0, n_heads, step)], rotation=0)
    step = max(1, -(-n_layers // max(2, int(tall / 0.16))))
    axes.set_yticks(np.arange(0, n_layers, step) + 0.5, [str(x) for x in layers[::step]], rotation=0)
    axes.tick_params(length=0)
    axes.set(xlabel="head", ylabel="layer")
    axes.set_title(title, pad=6)
    for spine in axes.spines.values():  # a frame, because much of the map may be white
        spine.set(visible=True, color=ABSENT)
    change_scale(figure, bound, 0.5, note)
    return figure
