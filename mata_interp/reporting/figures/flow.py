"""The flow of answers from without to with an intervention: corrected, broken, churned, unchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...plot.canvas import keep
from ...plot.tooltips import tip
from .palette import AUDIO, FAINT, INK, SOFT, TEXT

CHURNED = "#8f6fb0"
BAR = 0.06  # width of a column of answers, of an axis from 0 to 1


@dataclass(frozen=True)
class Flow:
    """Number of items by what happened to their answer."""

    right: int
    fixed: int
    broken: int
    churned: int
    wrong: int

    @property
    def n(self) -> int:
        """Number of items."""
        return self.right + self.fixed + self.broken + self.churned + self.wrong


def flow(counts: Flow, width: float) -> Figure:
    """Draw right and wrong answers before at the left, after at the right, and bands between them."""
    narrow = width < 5
    figure = Figure(figsize=(width, 2.9))
    axes = figure.add_axes((0.15 if narrow else 0.09, 0.02, 0.47 if narrow else 0.69, 0.88))
    n = max(counts.n, 1)
    right_before, right_after = counts.right + counts.broken, counts.right + counts.fixed
    gap = 0.06 * n
    # from the top: what is right before, then what is wrong before; the same after
    bands = [
        ("right both times", counts.right, 0, 0, FAINT),
        ("broken", counts.broken, counts.right, right_after + gap, TEXT),
        ("corrected", counts.fixed, right_before + gap, counts.right, AUDIO),
        ("churned: another wrong answer", counts.churned, right_before + gap + counts.fixed,
         right_after + gap + counts.broken, CHURNED),
        ("the same wrong answer", counts.wrong, right_before + gap + counts.fixed + counts.churned,
         right_after + gap + counts.broken + counts.churned, FAINT),
    ]  # fmt: skip
    for name, size, start, end, colour in bands:
        if size:
            _band(axes, size, start, end, colour, f"{size} of {counts.n} {name} ({100 * size / n:.1f} %)")
    _columns(axes, counts, right_before, right_after, gap)
    _names(axes, [band for band in bands if band[1]], n)
    axes.set(xlim=(0, 1), ylim=(n + gap, 0))
    axes.axis("off")
    keep(
        axes,
        pd.DataFrame(
            [(name, size, size / n) for name, size, *_ in bands], columns=["outcome", "items", "fraction"]
        ),
    )
    return figure


def _band(axes: Axes, size: int, start: float, end: float, colour: str, text: str) -> None:
    x = np.linspace(BAR, 1 - BAR, 40)
    bend = (1 - np.cos(np.linspace(0, np.pi, 40))) / 2
    top = start + (end - start) * bend
    alpha = 0.55 if colour == FAINT else 0.8
    tip(axes.fill_between(x, top, top + size, color=colour, alpha=alpha, linewidth=0), text)


def _columns(axes: Axes, counts: Flow, right_before: int, right_after: int, gap: float) -> None:
    """The two columns, right answers above wrong ones, with their shares."""
    n = counts.n
    for x, right, side, title in (
        (0.0, right_before, "right", "without"),
        (1 - BAR, right_after, "left", "with"),
    ):
        parts = (("right", 0.0, right, INK), ("wrong", right + gap, n - right, "#9a9a9a"))
        for name, top, size, colour in parts:
            if not size:
                continue
            box = Rectangle((x, top), BAR, size, color=colour, linewidth=0)
            tip(axes.add_patch(box), f"{size} of {n} answers {name} {title}")
            if side == "right":
                label = f"{100 * size / n:.0f} %\n{name}"
                axes.text(x - 0.02, top + size / 2, label, ha=side, va="center", clip_on=False)
        middle = x + BAR / 2
        axes.text(middle, -0.035 * n, title, ha="center", va="bottom", color=SOFT, clip_on=False)


def _names(axes: Axes, bands: list[tuple[str, int, float, float, str]], n: int) -> None:
    """Number and name of each band at its right end, moved apart where bands are thin."""
    ordered = sorted(bands, key=lambda band: band[3])
    heights = [end + size / 2 for _, size, _, end, _ in ordered]
    least = 0.085 * n
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + least)
    ceiling = 1.03 * n
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - least
    for (name, size, _, _, colour), height in zip(ordered, heights, strict=True):
        short = {"churned: another wrong answer": "churned", "the same wrong answer": "same wrong answer"}
        shown = INK if colour == FAINT else colour
        weight = "normal" if colour == FAINT else "bold"
        text = f"{size} {short.get(name, name)}"
        axes.text(1.02, height, text, va="center", color=shown, weight=weight, clip_on=False)
