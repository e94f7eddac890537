"""The change that one edit makes in each layer alone, with its interval over clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .palette import AUDIO, SOFT, TEXT
from .scale import LABEL, note_height


def single(
    change: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    layers: Sequence[int],
    title: str,
    width: float,
    note: str = "",
) -> Figure:
    """Draw ``change`` [layer] in nats with its interval ``low`` to ``high``; blue is gain, orange is loss.

    No line joins the layers, because each is a separate experiment.
    """
    edge = 0.45 + note_height(note)
    height = 2.1 + edge
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    x = np.arange(len(layers))
    colours = [AUDIO if value > 0 else TEXT for value in change]
    axes.axhline(0, color=SOFT, linewidth=0.7, zorder=0)
    axes.vlines(x, low, high, colors=colours, linewidth=1.6 if len(layers) <= 40 else 1.0)
    axes.scatter(x, change, c=colours, s=20 if len(layers) <= 40 else 9, zorder=3, linewidths=0)
    step = max(1, -(-len(layers) // (10 if width < 5 else 20)))
    axes.set_xticks(x[::step], [str(layer) for layer in layers[::step]])
    axes.set(xlim=(-0.6, len(layers) - 0.4), xlabel="layer", ylabel=LABEL)
    axes.set_title(title, pad=6)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(bottom=False)
    figure.subplots_adjust(left=0.62 / width, right=0.99, bottom=edge / height, top=1 - 0.28 / height)
    if note:
        figure.text(0.62 / width, 0.06 / height, note, fontsize=7.5, color=SOFT, va="bottom")
    return figure
