"""Numbers and names as text: per cent, points, p-values, ranges of layers."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from ..ranges import layer_range as layer_range
from ..ranges import named_layers as named_layers
from ..ranges import runs as runs

MINUS, NONE = "\u2212", "\u2014"


def known(value: float | None) -> bool:
    """Whether this is a finite number; JSON has null where numpy has NaN."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """``-1.5`` -> ``−1.50``: a minus sign, a dash if unknown, and never ``-0.0``."""
    if not known(value):
        return NONE
    text = f"{abs(value):,.{digits}f}"  # type: ignore[arg-type]
    if float(text.replace(",", "")) == 0:
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text  # type: ignore[operator]


def percent(fraction: float | None, digits: int = 1) -> str:
    """``0.5512`` -> ``55.1 %``."""
    return f"{number(fraction * 100, digits)}\u202f%" if known(fraction) else NONE  # type: ignore[operator]


def points(fraction: float | None, digits: int = 1) -> str:
    """A difference of two rates in percentage points, always signed: ``0.0612`` -> ``+6.1``."""
    return number(fraction * 100, digits, sign=True) if known(fraction) else NONE  # type: ignore[operator]


def interval(low: float | None, high: float | None, form=points) -> str:
    """``[+2.0, +10.1]``, or a dash if an end is unknown."""
    return f"[{form(low)}, {form(high)}]" if known(low) and known(high) else NONE


def p_value(p: float | None) -> str:
    """Two or three digits; ``< 0.001`` for smaller values."""
    if not known(p):
        return NONE
    return "<\u202f0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"  # type: ignore[operator, str-bytes-safe]


def listing(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def count(n: int, noun: str, plural: str = "") -> str:
    """``1 item``, ``2,000 items``."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def printable(text: object, limit: int = 0) -> str:
    """``text`` without control characters, which disturb terminals and SVG; cut to ``limit`` if given."""
    clean = "".join(
        c
        if c.isprintable()
        else " "
        if c.isspace()
        else "\ufffd"
        if unicodedata.category(c) in ("Cc", "Cs")
        else ""
        for c in str(text)
    )
    return clean if not limit or len(clean) <= limit else clean[: limit - 1].rstrip() + "…"
