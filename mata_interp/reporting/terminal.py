"""A `Listening` as text for a terminal: bars for the options, a line of blocks for attention over time."""

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
    """``0.5`` -> half of ``width`` columns filled, in steps of an eighth of a column, padded with spaces."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return (BLOCKS[8] * full + (BLOCKS[rest] if rest else "")).ljust(width)


def sparkline(values: Sequence[float] | np.ndarray) -> str:
    """One block per value, its height proportional to the largest value."""
    values = np.nan_to_num(np.asarray(values, dtype=float))
    top = values.max(initial=0.0)
    heights = np.zeros(len(values), int) if top <= 0 else np.ceil(values / top * 8).clip(1, 8).astype(int) - 1
    return "".join(STEPS[height] for height in heights)


def columns(text: str) -> int:
    """Terminal columns of ``text``: East Asian wide characters take two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def pad(text: str, width: int) -> str:
    """``text`` padded with spaces to ``width`` columns."""
    return text + " " * (width - columns(text))


def edit_text(listening: Listening) -> str:
    """MATA's settings in a line, such as ``rule abs, alpha 0.1, layers 3-5``."""
    mata = listening.mata
    text = f"rule {mata.rule}, alpha {mata.alpha:g}, {named_layers(mata.layers)}"
    return (
        f"{text} (published layers, {listening.layers_convention})" if listening.layers_convention else text
    )


def render_text(listening: Listening) -> str:
    """The text that `mata-interp listen` prints."""
    edit = edit_text(listening)
    lines = [printable(listening.item.question)]
    if listening.item.caption:
        lines.append(f"caption: {printable(listening.item.caption)}")
    lines.append("")
    lines += _options(listening) if listening.item.choices else _texts(listening)
    top = int(np.nanargmax(listening.share))
    end = f"{number(listening.seconds, 1)} s"
    spark = sparkline(listening.profile)
    lines += [
        "",
        "attention to the audio over time, mean over layers, without MATA:",
        f"  {spark}",
        f"  0 s{end.rjust(max(len(spark) - 3, len(end) + 1))}",
        f"  audio share of attention {percent(float(np.nanmean(listening.share)), 0)} on average; maximum "
        f"{percent(listening.share[top], 0)} in layer {listening.layers[top]}",
        "",
        f"model {printable(listening.model)}; MATA: {edit}",
    ]
    if len(listening.clip_starts) > 1:
        lines.append(clips_text(listening))
    if listening.truncated_seconds > 0:
        cut = number(listening.truncated_seconds, 1)
        lines.append(f"the last {cut} s were cut, as the clip is too long for the model")
    return "\n".join(lines)


def clips_text(listening: Listening) -> str:
    """Where each of several clips begins, and how much attention it gets."""
    clips = [
        f"clip {n} from {number(start, 1)} s: {percent(float(part), 1)}"
        for n, (start, part) in enumerate(
            zip(listening.clip_starts, listening.clip_attention, strict=True), 1
        )
    ]
    return f"attention to each clip, mean over layers, without MATA: {'; '.join(clips)}"


def _options(listening: Listening) -> list[str]:
    names = [printable(option, 40) for option in listening.item.choices]
    width = max(map(columns, names))
    lines = [f"  {pad('', width)}  {'without MATA'.ljust(BAR + 9)}with MATA"]
    for name, option, before, after in zip(
        names, listening.item.choices, listening.before, listening.after, strict=True
    ):
        marks = [
            " ◀" if option == chosen else "  " for chosen in (listening.answer_before, listening.answer_after)
        ]
        cells = [f"{bar(p)} {percent(p, 0):>5}{mark}" for p, mark in zip((before, after), marks, strict=True)]
        lines.append(f"  {pad(name, width)}  {' '.join(cells)}".rstrip())
    return lines


def _texts(listening: Listening) -> list[str]:
    return [
        f"  without MATA: {printable(listening.answer_before)}",
        f"  with MATA:    {printable(listening.answer_after)}",
    ]
