"""Fonts of the figures of a page. Their colours are those of `mata_interp.plot`."""

from __future__ import annotations

from typing import Any

from ...plot.colours import (
    AUDIO,
    CHANGE_MAP,
    FAINT,
    GROUP_COLOURS,
    INK,
    PAPER,
    SHARE_MAP,
    SOFT,
    TEXT,
)

__all__ = [
    "AUDIO",
    "CHANGE_MAP",
    "FAINT",
    "GROUP_COLOURS",
    "INK",
    "PAPER",
    "RC",
    "SHARE_MAP",
    "SOFT",
    "TEXT",
]

RC: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib, so the layout is the same on every machine
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in user text is a dollar sign
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "svg.fonttype": "none",
}
