"""Texts of marks: what a page shows beside a bar, a dot or a cell under the pointer.

The texts stand beside the artists, not in them, so that a figure saved by matplotlib is unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from matplotlib.artist import Artist

__all__ = ["ends", "percent", "signed", "tip", "tips_of"]

_TEXTS: WeakKeyDictionary[Artist, tuple[str, ...]] = WeakKeyDictionary()


def tip(artist: Artist, *texts: str) -> None:
    """Attach a text to an artist, or one to each mark of a collection, in the order of drawing."""
    _TEXTS[artist] = texts


def tips_of(artist: Artist) -> Sequence[str] | None:
    """The texts of an artist; None if it has none."""
    return _TEXTS.get(artist)


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign; the minus is typographic, and zero has none."""
    text = f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return text[1:] if float(f"{value:.{digits}f}") == 0 else text


def percent(value: float) -> str:
    """A fraction in per cent, without the sign: ``0.123`` -> ``12.3``."""
    return f"{100 * value:.1f}".replace("-", "\N{MINUS SIGN}")


def ends(low: float, high: float, form: Callable[[float], str]) -> str:
    """The ends of an interval after a space, each in the form of ``form``; empty where one is not known."""
    return f" [{form(low)}, {form(high)}]" if math.isfinite(low) and math.isfinite(high) else ""
