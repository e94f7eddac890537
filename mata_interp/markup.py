"""HTML of objects in notebooks: tables, coloured tokens and players, as text that is always escaped.

Each class builds its own ``_repr_html_`` from these parts. Colours are those of the notebook (``inherit``),
and tints are translucent, so that light and dark themes both stay readable. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import html
import io
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

__all__ = ["coloured_tokens", "facts", "frame", "legend", "line", "player", "printable", "table"]

LONGEST = 400  # characters of a text
TINTS = {
    "audio": "0, 114, 178",
    "question": "213, 94, 0",
    "options": "230, 159, 0",
    "caption": "240, 228, 66",
    "generated": "143, 111, 176",
}
"""Red, green and blue of each group's tint; other groups have none."""

_TABLE = "border-collapse:collapse;background:transparent;color:inherit;font-size:90%"
_CELL = "padding:0.15em 0.9em 0.15em 0;text-align:left;vertical-align:top;background:transparent"


def printable(text: object, limit: int = LONGEST) -> str:
    """``text`` without control and direction characters, cut to ``limit`` characters, escaped for HTML."""
    shown = str(text)
    shown = shown if len(shown) <= limit else shown[: limit - 1].rstrip() + "…"
    characters = (c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else " " for c in shown)
    return html.escape("".join(characters))


def frame(title: str, *parts: str) -> str:
    """One object: its title in bold and its parts, which are HTML already."""
    body = "".join(parts)
    return f'<div style="color:inherit;line-height:1.45"><strong>{printable(title)}</strong>{body}</div>'


def line(text: object, small: bool = False) -> str:
    """A line of text; ``small`` for notes."""
    size = "font-size:85%;opacity:0.75;" if small else ""
    return f'<div style="{size}max-width:60em">{printable(text, 1200)}</div>'


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Names with their values, one a line."""
    cells = "".join(
        f'<tr style="background:transparent"><td style="{_CELL};opacity:0.75">{printable(name)}</td>'
        f'<td style="{_CELL}">{printable(value)}</td></tr>'
        for name, value in rows
    )
    return f'<table style="{_TABLE}">{cells}</table>'


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """A table of texts with a note below; cells that hold a `str` made by `player` are kept as they are."""
    head = "".join(f'<th style="{_CELL};opacity:0.75">{printable(name)}</th>' for name in columns)
    body = "".join(
        '<tr style="background:transparent">'
        + "".join(f'<td style="{_CELL}">{_cell(value)}</td>' for value in row)
        + "</tr>"
        for row in rows
    )
    below = line(note, small=True) if note else ""
    return f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}'


class _Html(str):
    """HTML that `table` does not escape."""


def _cell(value: object) -> str:
    return value if isinstance(value, _Html) else printable(value, 120)


def player(samples: np.ndarray, rate: int) -> str:
    """A player with the clip in it, as Ogg/Opus where the rate allows, else as FLAC.

    Args:
        samples: mono, from -1 to 1, float ``[n]``.
        rate: in Hz.
    """
    import soundfile

    stream = io.BytesIO()
    opus = rate in (8000, 12000, 16000, 24000, 48000)
    kind: dict[str, Any] = {"format": "OGG", "subtype": "OPUS"} if opus else {"format": "FLAC"}
    soundfile.write(stream, np.clip(samples, -1, 1), rate, **kind)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    form = "ogg" if opus else "flac"
    style = "height:2em;max-width:16em;vertical-align:middle"
    return _Html(
        f'<audio controls preload="none" style="{style}" src="data:audio/{form};base64,{data}"></audio>'
    )


def coloured_tokens(tokens: Sequence[tuple[str, str]], seconds: float) -> str:
    """Text tinted by token group; a run of audio tokens becomes a bar with seconds below it.

    Args:
        tokens: text and group of each token, in order.
        seconds: of the audio, all runs together; NaN where not known.
    """
    total = sum(group == "audio" for _, group in tokens)
    parts, begin = [], 0.0
    for group, members in groupby(tokens, key=lambda token: token[1]):
        texts = [text for text, _ in members]
        if group == "audio":
            length = seconds * len(texts) / total
            parts.append(_audio_bar(len(texts), begin, begin + length))
            begin += length
            continue
        tint = TINTS.get(group)
        style = f"background:rgba({tint},0.25);" if tint else "opacity:0.6;"
        text = printable("".join(texts), 10 * LONGEST).replace("\n", "↵<br>")
        parts.append(f'<span title="{printable(group)}" style="{style}color:inherit">{text}</span>')
    return f'<div style="max-width:60em;overflow-wrap:anywhere;margin:0.3em 0">{"".join(parts)}</div>'


def legend(groups: Iterable[tuple[str, int]]) -> str:
    """The tint of each group and its number of tokens."""
    keys = [
        f'<span style="background:rgba({TINTS[group]},0.25);color:inherit">{printable(group)}</span> {number}'
        if group in TINTS
        else f'<span style="opacity:0.6">{printable(group)}</span> {number}'
        for group, number in groups
    ]
    return f'<div style="font-size:85%">tokens: {", ".join(keys)}</div>'


def _audio_bar(count: int, begin: float, end: float) -> str:
    """A bar for a run of audio tokens, with seconds below it where they are known."""
    tint = f"rgba({TINTS['audio']},0.25)"
    ticks = ""
    if np.isfinite(end):
        step = next(step for step in (1, 2, 5, 10, 30, 60, 300, np.inf) if (end - begin) / step <= 8)
        marks = [begin, *(np.arange(begin + step, end - 0.3 * step, step) if np.isfinite(step) else []), end]
        ticks = "".join(
            f'<span style="position:absolute;left:{100 * (mark - begin) / (end - begin or 1):.1f}%;'
            f'transform:translateX(-{100 * (mark - begin) / (end - begin or 1):.0f}%)">{mark:.3g} s</span>'
            for mark in marks
        )
    return (
        f'<span title="audio" style="display:inline-block;width:22em;max-width:95%;vertical-align:top;'
        f'margin:0 0.2em"><span style="display:block;background:{tint};color:inherit;text-align:center">'
        f'♪ {count} audio tokens</span><span style="display:block;position:relative;height:1.5em;'
        f'font-size:80%">{ticks}</span></span>'
    )
