"""Changes, rates and p-values as text for sentences."""

from __future__ import annotations

from math import floor, isnan

from ..statistics import Effect, NoHarm

__all__ = [
    "change_text",
    "nats",
    "p_text",
    "percent",
    "percent_pair",
    "percent_text",
    "points",
    "size_text",
]

MINUS = "\N{MINUS SIGN}"


def points(fraction: float) -> str:
    """``0.061`` -> ``+6.1``: a difference of rates in percentage points."""
    return f"{100 * fraction:+.1f}".replace("-", MINUS)


def nats(value: float) -> str:
    """``-0.782`` -> ``−0.78``: a difference of log-probabilities."""
    return f"{value:+.2f}".replace("-", MINUS)


def percent(fraction: float) -> str:
    """``0.645`` -> ``64.5 %``."""
    return f"{100 * fraction:.1f} %"


def percent_text(fraction: float) -> str:
    """``0.342`` -> ``34 %``: in whole per cent, for headlines."""
    return f"{_rounded(100 * fraction)} %"


def percent_pair(before: float, after: float) -> tuple[str, str]:
    """``(0.378, 0.645)`` -> ``("38", "65")``: in whole per cent, or in tenths where they look alike."""
    pair = _rounded(100 * before), _rounded(100 * after)
    if pair[0] == pair[1] and before != after:
        return f"{100 * before:.1f}", f"{100 * after:.1f}"
    return str(pair[0]), str(pair[1])


def _rounded(value: float) -> int:
    """The nearest whole number; halves go up, as readers expect of 64.5 %."""
    return floor(round(value, 6) + 0.5)


def p_text(value: float) -> str:
    """``p = 0.031``, ``p < 0.001``, or that there is no p-value."""
    if isnan(value):
        return "no p-value"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def size_text(value: float, kind: str) -> str:
    """A size without a sign: ``4.4 points``, ``0.14 nats``."""
    return f"{100 * value:.1f} points" if kind == "binary" else f"{value:.2f} nats"


def change_text(effect: Effect | NoHarm) -> str:
    """``+6.1 points [+2.0, +10.1]`` or ``−0.78 nats [−0.93, −0.64]``; no interval where there is none."""
    form, unit = (points, "points") if effect.kind == "binary" else (nats, "nats")
    known = not (isnan(effect.low) or isnan(effect.high))
    interval = f" [{form(effect.low)}, {form(effect.high)}]" if known else ""
    return f"{form(effect.difference)} {unit}{interval}"
