"""A listening as text for a terminal: bars for the options, a line of blocks for the attention over time."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .wording import named_layers, number, percent, printable

if TYPE_CHECKING:
    from .listening import Listening

BLOCKS, STEPS = " ▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█"
BAR = 20


def bar(fraction: float, width: int = BAR) -> str:
    """``0.5`` -> half of ``width`` columns filled, to an eighth of a column; padded with blanks."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return (BLOCKS[8] * full + (BLOCKS[rest] if rest else "")).ljust(width)


def sparkline(values: Sequence[float] | np.ndarray) -> str:
    """One block a value, its height in proportion to the largest."""
    values = np.nan_to_num(np.asarray(values, dtype=float))
    top = values.max(initial=0.0)
    heights = np.zeros(len(values), int) if top <= 0 else np.ceil(values / top * 8).clip(1, 8).astype(int) - 1
    return "".join(STEPS[height] for height in heights)


def columns(text: str) -> int:
    """Columns of a terminal that ``text`` takes: East Asian wide letters take two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def pad(text: str, width: int) -> str:
    """``text`` with blanks up to ``width`` columns."""
    return text + " " * (width - columns(text))


def listening_text(heard: Listening) -> str:
    """What `mata-interp listen` prints."""
    mata = heard.mata
    edit = f"rule {mata.rule}, alpha {mata.alpha:g}, {named_layers(mata.layers)}"
    lines = [printable(heard.item.question), ""]
    lines += _options(heard) if heard.item.choices else _words(heard)
    deepest = int(np.nanargmax(heard.share))
    end = f"{number(heard.seconds, 1)} s"
    spark = sparkline(heard.profile)
    lines += [
        "",
        "where it listened, mean over layers, without MATA:",
        f"  {spark}",
        f"  0 s{end.rjust(max(len(spark) - 3, len(end) + 1))}",
        f"  audio share of its attention {percent(float(np.nanmean(heard.share)), 0)}; most in layer "
        f"{heard.layers[deepest]}, {percent(heard.share[deepest], 0)}",
        "",
        f"model {printable(heard.model)}; MATA: {edit}",
    ]
    if heard.truncated_seconds > 0:
        lines.append(f"the last {number(heard.truncated_seconds, 1)} s were cut off: the model takes no more")
    return "\n".join(lines)


def _options(heard: Listening) -> list[str]:
    names = [printable(option, 40) for option in heard.item.choices]
    width = max(map(columns, names))
    lines = [f"  {pad('', width)}  {'without MATA'.ljust(BAR + 9)}with MATA"]
    for name, option, before, after in zip(names, heard.item.choices, heard.before, heard.after, strict=True):
        marks = [" ◀" if option == said else "  " for said in (heard.said_before, heard.said_after)]
        cells = [f"{bar(p)} {percent(p, 0):>5}{mark}" for p, mark in zip((before, after), marks, strict=True)]
        lines.append(f"  {pad(name, width)}  {' '.join(cells)}".rstrip())
    return lines


def _words(heard: Listening) -> list[str]:
    return [
        f"  without MATA: {printable(heard.said_before)}",
        f"  with MATA:    {printable(heard.said_after)}",
    ]
