"""Colours and fonts of all figures.

Audio is blue, user text is orange to yellow, template and sink are grey, in every figure. Blue and orange of
the palette of Okabe and Ito remain distinguishable under all common colour-vision deficiencies.
"""

from __future__ import annotations

from typing import Any

import seaborn as sns

INK, SOFT, FAINT, PAPER = "#1a1a1a", "#595959", "#d9d9d9", "#ffffff"
AUDIO, TEXT = "#0072b2", "#d55e00"
SHARE_MAP = sns.blend_palette(["#f4f8fb", "#9cc7e0", AUDIO, "#003554"], as_cmap=True)
"""For shares; darker is larger."""
CHANGE_MAP = sns.blend_palette([TEXT, "#ffffff", AUDIO], as_cmap=True)
"""For changes; orange is loss, blue is gain."""

GROUP_COLOURS = {
    "audio": AUDIO,
    "question": "#c44e00",
    "options": "#e69f00",
    "caption": "#f5d06f",
    "generated": "#8f6fb0",
    "template": "#9a9a9a",
    "sink": "#d4d4d4",
}

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
