"""One clip: its waveform, the attention over time, and the same layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ..wording import named_layers, runs
from .palette import AUDIO, INK, SHARE_MAP, SOFT

LEFT, RIGHT = (
    0.1,
    0.97,
)  # edges of the axes as fractions of the figure width, between which the page's playhead moves
POINTS = 700  # of the waveform


def clip(
    samples: np.ndarray,
    edges: np.ndarray,
    attention: np.ndarray,
    layers: Sequence[int],
    window: Sequence[int],
    width: float,
) -> Figure:
    """Draw ``samples`` with the mean of ``attention`` [layer, bin] over layers, and below it every layer.

    ``edges`` [bin + 1] are in seconds, attention is a fraction, and MATA edits the layers ``window``.
    """
    heat_height = min(max(0.17 * len(layers), 0.9), 4.0)
    figure = Figure(figsize=(width, 1.5 + heat_height + 1.05))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, heat_height])
    seconds = float(edges[-1])
    chunks = np.array_split(samples, min(POINTS, len(samples)))
    top = float(np.abs(samples).max()) or 1.0
    x = np.linspace(0, seconds, len(chunks))
    low, high = (np.array([reduce(c) for c in chunks]) / top for reduce in (np.min, np.max))
    upper.fill_between(x, low, high, color="#b3b3b3", linewidth=0)
    mean = attention.mean(0) / np.diff(edges)  # per second: bins may differ by one token
    curve = mean / (mean.max() or 1.0) * 2 - 1
    upper.stairs(curve, edges, baseline=-1, fill=True, color=AUDIO, alpha=0.25)
    upper.stairs(curve, edges, baseline=None, color=AUDIO, linewidth=1.3)
    upper.set(ylim=(-1.05, 1.05), yticks=[], xlim=(0, seconds))
    upper.set_title("Waveform and, in blue, attention over time", pad=5)
    upper.spines[["left", "bottom"]].set_visible(False)
    upper.tick_params(bottom=False)
    rows = np.arange(len(layers) + 1) - 0.5
    mesh = lower.pcolormesh(
        edges, rows, attention * 100, cmap=SHARE_MAP, vmin=0, rasterized=attention.size > 600
    )
    step = max(1, -(-len(layers) // 10))
    lower.set_yticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    lower.set_ylabel("layer")
    lower.set_xlabel("seconds")
    lower.set_title("Attention per layer and time bin, %", pad=5)
    for first, last in runs(row for row, layer in enumerate(layers) if layer in set(window)):
        lower.plot(
            [seconds * 1.006] * 2, [first - 0.45, last + 0.45], color=INK, linewidth=2.5, clip_on=False
        )
    total = figure.get_figheight()
    figure.subplots_adjust(left=LEFT, right=RIGHT, top=1 - 0.25 / total, bottom=0.72 / total, hspace=0.28)
    scale = figure.add_axes((LEFT, 0.25 / total, 0.3, 0.09 / total))
    bar = figure.colorbar(mesh, cax=scale, orientation="horizontal", format="%g %%")
    bar.outline.set_visible(False)  # type: ignore[operator]
    scale.tick_params(length=0)
    if window:
        note = f"bar at the right: {named_layers(window)}, edited by MATA"
        figure.text(RIGHT, 0.2 / total, note, ha="right", color=SOFT, fontsize=7.5)
    return figure
