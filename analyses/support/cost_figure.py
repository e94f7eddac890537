"""The figure of instrument_cost.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("Agg")

__all__ = ["OTHER", "OURS", "draw"]

OURS, OTHER, FLOOR = "#0072b2", "#d55e00", "#7f7f7f"

FORWARD = (
    "trace",
    "trace, text queries",
    "trace, all queries",
    "MATA, forward",
    "MATA, forward, all layers",
    "layer criteria, window",
    "layer criteria, last query",
    "layer criteria, all",
    "sweep, 96 knockouts",
    "sweep, 234 windows x alphas",
    "sweep, 1000",
    "transformers, output_attentions",
    "transformer-lens, patterns",
    "transformer-lens, all",
)
TOKEN = ("MATA, generate", "MATA, generate, all layers")
NAMES = {
    "trace": "trace, last query",
    "trace, text queries": "trace, text after the audio",
    "trace, all queries": "trace, every token a query",
    "MATA, forward": "MATA, 5 of 12 layers",
    "MATA, forward, all layers": "MATA, every layer",
    "layer criteria, window": "layer criteria of the window",
    "layer criteria, last query": "layer criteria, last query",
    "layer criteria, all": "layer criteria, all",
    "MATA, generate": "a token with MATA, 5 of 12 layers",
    "MATA, generate, all layers": "a token with MATA, every layer",
    "sweep, 96 knockouts": "sweep: every head knocked out (96)",
    "sweep, 234 windows x alphas": "sweep: windows × alphas (234)",
    "sweep, 1000": "sweep: 1,000 configurations",
    "transformers, output_attentions": "transformers: output_attentions",
    "transformer-lens, patterns": "transformer-lens: patterns",
    "transformer-lens, all": "transformer-lens: whole cache",
}


def draw(table: pd.DataFrame, width: int, path: Path) -> None:
    """Time and memory of each instrument, and the time of a sweep by number of configurations."""
    sns.set_theme(style="ticks", context="paper", palette="colorblind", font="DejaVu Sans")
    rows: Any = table.set_index("name")
    names = [name for name in (*FORWARD, *TOKEN) if name in rows.index]
    figure = Figure(figsize=(7.4, 6.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.3, 1])
    upper, lower = halves
    cost, memory = upper.subplots(1, 2, sharey=True, width_ratios=[1.35, 1])
    growth = lower.subplots()
    _dots(cost, rows, names)
    _bars(memory, rows, names)
    _growth(growth, rows, width)
    for axes, letter in zip((cost, memory, growth), "abc", strict=True):
        title = axes.get_title()
        axes.set_title("")
        axes.set_title(f"{letter}   {title}", loc="left", fontsize=9)
        axes.tick_params(labelsize=7.5)
        sns.despine(ax=axes)
    memory.tick_params(left=False)
    figure.savefig(path, dpi=200)


def _colour(name: str) -> str:
    return OTHER if name.startswith("transformer") else OURS


def _dots(axes: Axes, rows: Any, names: list[str]) -> None:
    """Median ratio with its quartiles, and a tick at the target."""
    axes.axvline(1, color="0.6", linewidth=0.8, zorder=0)
    for y, name in enumerate(names):
        row, colour = rows.loc[name], _colour(name)
        axes.plot([row["ratio_low"], row["ratio_high"]], [y, y], color=colour, linewidth=2, alpha=0.5)
        axes.plot(row["ratio"], y, "o", color=colour, markersize=4.5)
        place = row["ratio_high"]
        if pd.notna(row["target"]):
            axes.plot(row["target"], y, "|", color="black", markersize=9, markeredgewidth=1.2)
            place = max(place, row["target"])
        place = {"xytext": (6, 0), "textcoords": "offset points", "xy": (place, y)}
        axes.annotate(f"{row['ratio']:.2f}", **place, va="center", fontsize=7)
    forward = len(names) - sum(name in TOKEN for name in names)
    axes.axhline(forward - 0.5, color="0.8", linewidth=0.6)
    axes.set(xscale="log", title="Time, relative to SDPA alone (tick: target)", ylim=(len(names) - 0.4, -0.6))
    axes.set_yticks(range(len(names)), [NAMES.get(name, name) for name in names])
    low = min(0.85, rows.loc[names, "ratio_low"].min() * 0.95)
    high = rows.loc[names, "ratio_high"].max() * 1.7
    ticks = [t for t in (0.5, 1, 1.5, 2, 3, 5, 10, 20) if low <= t <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("× plain forward (lowest rows: × token of transformers' generate)", fontsize=7.5)


def _bars(axes: Axes, rows: Any, names: list[str]) -> None:
    """Peak memory of a process that runs one task."""
    plain = rows["peak_bytes"]["plain"] / 1e9
    for y, name in enumerate(names):
        if pd.notna(rows["peak_bytes"][name]):
            size = rows["peak_bytes"][name] / 1e9
            axes.barh(y, size, color=_colour(name), height=0.6)
            axes.annotate(
                f"{size:.2f}", (size, y), (3, 0), textcoords="offset points", va="center", fontsize=7
            )
    axes.axvline(plain, color="black", linewidth=0.8)
    axes.set_title("Peak memory of a process, GB")
    axes.set_xlabel(f"line: SDPA alone, {plain:.2f} GB", fontsize=7.5)
    axes.set_xlim(0, rows["peak_bytes"].max() / 1e9 * 1.18)


def _growth(axes: Axes, rows: Any, width: int) -> None:
    """Sweep, loop and floor against the number of configurations."""

    def series(kind: str) -> Any:
        chosen = rows[rows.index.str.fullmatch(rf"{kind}, \d+")]
        return chosen.assign(count=[int(name.split(", ")[1]) for name in chosen.index]).sort_values("count")

    loop, sweep, floor = series("loop"), series("sweep"), series("floor")
    counted = loop["extrapolated"].astype(bool)
    measured, beyond = loop[~counted], loop[counted]
    axes.plot(loop["count"], loop["ratio"], "--", color=OTHER, linewidth=1.1)
    each = "a forward for each configuration (open: extrapolated from 10)"
    axes.plot(measured["count"], measured["ratio"], "o-", color=OTHER, markersize=4.5, label=each)
    axes.plot(beyond["count"], beyond["ratio"], "o", color=OTHER, markersize=4.5, markerfacecolor="white")
    axes.fill_between(
        sweep["count"], sweep["ratio_low"], sweep["ratio_high"], color=OURS, alpha=0.2, linewidth=0
    )
    axes.plot(sweep["count"], sweep["ratio"], "o-", color=OURS, markersize=4.5, label="one sweep")
    longer = f"a plain forward of {width:,} + C tokens"
    axes.plot(floor["count"], floor["ratio"], ":", color=FLOOR, linewidth=1.6, label=longer)
    axes.legend(frameon=False, fontsize=7.5, loc="upper left")
    axes.set(xscale="log", yscale="log", title="A whole causal map")
    axes.set_xlabel("configurations C of layers, heads and strength", fontsize=7.5)
    axes.set_ylabel("× plain forward", fontsize=7.5)
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axes.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axes.set_ylim(0.5, 2000)
    axes.minorticks_off()
