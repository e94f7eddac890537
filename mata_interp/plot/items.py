"""Plots of single items: log-probability differences before and after, and one clip with its attention."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..errors import FigureError, unknown_name
from ..experiments import Run
from .canvas import current, keep, layer_ticks, wrong_type
from .colours import AUDIO, SHARE_MAP, SOFT, TEXT, Palette, colour_map, line_colours
from .tooltips import signed, tip

__all__ = ["clip", "margins"]

POINTS = 700  # of a waveform
MOST_DOTS = 1200  # more are drawn as one image in a vector file


def margins(
    run: Run,
    before: str = "baseline",
    after: str = "mata",
    *,
    ax: Axes | None = None,
    palette: Palette = None,
) -> Axes:
    """Draw the margin of every item under two conditions: its log-probability difference.

    One dot is one item. A margin above zero is a right answer: the upper left quadrant has the answers
    that the second condition corrected, the lower right those that it broke.

    Args:
        run: a run that compares options.
        before, after: names of the conditions.
        ax: where to draw; None: pyplot's current axes.
        palette: the colours of corrected, broken and unchanged answers.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers, in nats.

    Raises:
        FigureError: it is no run, there is no such condition, or no item has both values.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[:4]
        >>> conditions = {"baseline": None, "mata": mi.Mata(2.0, [4, 5, 6, 7])}
        >>> _, ax = plt.subplots()
        >>> ax = mi.plot.margins(mi.run(lalm, items, conditions, progress=False), ax=ax)
        >>> len(mi.plot.data(ax))
        4
    """
    if not isinstance(run, Run):
        raise wrong_type(run, "margins", "a run")
    for name in (before, after):
        if name not in run.conditions:
            raise FigureError(unknown_name("condition", name, run.conditions))
    values: Any = run.records.pivot(index="item", columns="condition", values="margin")
    if not {before, after} <= set(values) or (values := values[[before, after]].dropna()).empty:
        raise FigureError(f"No item has a log-probability difference under both {before!r} and {after!r}.")
    return draw_margins(
        current(ax),
        values[before],
        values[after],
        (f"margin, {before}, nats", f"margin, {after}, nats"),
        palette,
    )


def draw_margins(
    ax: Axes, before: pd.Series, after: pd.Series, labels: tuple[str, str], palette: Palette = None
) -> Axes:
    """Scatter the margins ``after`` over those ``before``, nats, by item id; ``labels`` are the axes'."""
    x, y = (np.asarray(values, dtype=float) for values in (before, after))
    items = [str(item)[:60] for item in before.index]
    corrected, broken = (x <= 0) & (y > 0), (x > 0) & (y <= 0)
    colours = line_colours(
        ["corrected", "broken", "unchanged"], [AUDIO, TEXT, "#9a9a9a"] if palette is None else palette
    )
    for part, colour, marker in zip(
        (~corrected & ~broken, corrected, broken), (colours[2], *colours[:2]), "oD^", strict=True
    ):
        dots = ax.scatter(
            x[part], y[part], color=colour, marker=marker, s=14, linewidths=0, alpha=0.8,
            rasterized=len(x) > MOST_DOTS,
        )  # fmt: skip
        rows = np.flatnonzero(part).tolist()
        tip(dots, *(f"{items[n]}: {signed(float(x[n]))} to {signed(float(y[n]))} nats" for n in rows))
    bound = float(np.abs([x, y]).max(initial=1.0)) * 1.05
    ax.plot([-bound, bound], [-bound, bound], color=SOFT, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    ax.axhline(0, color=SOFT, linewidth=0.6, zorder=0)
    ax.axvline(0, color=SOFT, linewidth=0.6, zorder=0)
    ax.set(xlim=(-bound, bound), ylim=(-bound, bound), aspect="equal")
    corner: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "weight": "bold"}
    ax.annotate(f"{corrected.sum()} corrected", (0, 1), (4, -4), color=colours[0], va="top", **corner)
    ax.annotate(f"{broken.sum()} broken", (1, 0), (-4, 4), color=colours[1], ha="right", **corner)
    ax.set_xlabel(labels[0], parse_math=False)
    ax.set_ylabel(labels[1], parse_math=False)
    change = np.where(corrected, "corrected", np.where(broken, "broken", "unchanged"))
    return keep(ax, pd.DataFrame({"item": before.index, "before": x, "after": y, "outcome": change}))


class AttentionOverTime(Protocol):
    """What `clip` needs of a `mata_interp.Listening`."""

    @property
    def attention(self) -> np.ndarray: ...  # [layer, bin]
    @property
    def edges(self) -> np.ndarray: ...  # [bin + 1], seconds
    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def samples(self) -> np.ndarray: ...


def clip(
    listening: AttentionOverTime,
    *,
    by_layer: bool = False,
    ax: Axes | None = None,
    palette: Palette = None,
) -> Axes:
    """Draw the attention to a clip over time: above its waveform, or layer by layer.

    Args:
        listening: from `mata_interp.listen`.
        by_layer: draw a map of layers and time; otherwise the mean over layers, as a step above the waveform.
        ax: where to draw; None: pyplot's current axes.
        palette: the colour map with ``by_layer``, otherwise the colour of the attention.

    Returns:
        The axes. `mata_interp.plot.data` returns the numbers: the attention of each time bin, as a fraction.

    Raises:
        FigureError: it has no attention over time.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import mata_interp as mi
        >>> lalm, item = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[0]
        >>> listening = mi.listen(lalm, item.audio_root / item.audio, item.question, item.choices)
        >>> _, ax = plt.subplots()
        >>> mi.plot.clip(listening, ax=ax).get_xlabel()
        'seconds'
    """
    if not all(hasattr(listening, name) for name in ("attention", "edges", "layers", "samples")):
        raise wrong_type(listening, "clip", "what mi.listen returns")
    ax = current(ax)
    edges, attention = np.asarray(listening.edges), np.asarray(listening.attention)
    bins = pd.DataFrame({"begin": edges[:-1], "end": edges[1:]})
    if by_layer:
        rows = np.arange(len(listening.layers) + 1) - 0.5
        mesh = ax.pcolormesh(
            edges,
            rows,
            attention,
            cmap=colour_map(palette, SHARE_MAP),
            vmin=0,
            rasterized=attention.size > 600,
        )
        layer_ticks(ax, listening.layers, "y")
        bar = ax.figure.colorbar(mesh, ax=ax, label="attention")  # type: ignore[union-attr]
        bar.outline.set_visible(False)  # type: ignore[operator]
        ax.set_ylabel("layer")
        table = pd.concat(
            [bins.assign(layer=at, value=row) for at, row in zip(listening.layers, attention, strict=True)]
        )
    else:
        mean = attention.mean(0)
        _waveform(ax, np.asarray(listening.samples), float(edges[-1]))
        colour = AUDIO if palette is None else line_colours(["attention"], palette)[0]
        density = mean / np.diff(edges)  # a bin may be one token longer than the next
        curve = density / (density.max() or 1.0) * 2 - 1
        ax.stairs(curve, edges, baseline=-1, fill=True, color=colour, alpha=0.25)
        ax.stairs(curve, edges, baseline=None, color=colour, linewidth=1.3)
        ax.set(ylim=(-1.05, 1.05), yticks=[])
        table = bins.assign(value=mean)
    ax.set(xlabel="seconds", xlim=(0, float(edges[-1])))
    return keep(ax, table)


def _waveform(ax: Axes, samples: np.ndarray, seconds: float) -> None:
    """The envelope of the samples, scaled to -1 and 1."""
    chunks = np.array_split(samples, min(POINTS, len(samples)))
    top = float(np.abs(samples).max(initial=0.0)) or 1.0
    low, high = (np.array([reduce(chunk) for chunk in chunks]) / top for reduce in (np.min, np.max))
    ax.fill_between(np.linspace(0, seconds, len(chunks)), low, high, color="#b3b3b3", linewidth=0)
