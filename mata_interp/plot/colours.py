"""Colours of all plots: one for each token group, one for each line, and two colour maps.

Audio is blue, user text is orange to yellow, template and sink are grey, in every plot. Lines take the
colours of Okabe and Ito (2008), which remain distinguishable under all common colour-vision deficiencies;
each line also has a marker of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.colors import Colormap

from ..errors import FigureError

__all__ = [
    "AUDIO",
    "CHANGE_MAP",
    "FAINT",
    "GROUP_COLOURS",
    "INK",
    "MARKERS",
    "PAPER",
    "SHARE_MAP",
    "SOFT",
    "TEXT",
    "Palette",
    "colour_map",
    "line_colours",
]

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

LINES = (AUDIO, TEXT, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
MARKERS = "osD^vPX"

Palette = str | Sequence[Any] | Mapping[str, Any] | Colormap | None
"""What a ``palette`` argument takes: a name that seaborn or matplotlib knows, colours, or label -> colour."""


def line_colours(labels: Sequence[str], palette: Palette = None) -> list[Any]:
    """One colour for each label.

    Args:
        labels: the lines' labels.
        palette: None for the colours of Okabe and Ito; a name or a list as for ``seaborn.color_palette``; or
            label -> colour.

    Raises:
        FigureError: there is no such palette, or a label has no colour in it.
    """
    if isinstance(palette, Mapping):
        if missing := [label for label in labels if label not in palette]:
            raise FigureError(f"The palette has no colour for {missing[0]!r}; it has {list(palette)}.")
        return [palette[label] for label in labels]
    if palette is None and len(labels) <= len(LINES):
        return list(LINES[: len(labels)])
    try:
        return list(sns.color_palette("husl" if palette is None else palette, len(labels)))  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise FigureError(f"palette={palette!r} cannot be used: {error}") from error


def colour_map(palette: Palette, default: Colormap) -> Colormap:
    """The colour map of a heat map; ``default`` if ``palette`` is None.

    Raises:
        FigureError: there is no such colour map.
    """
    if palette is None:
        return default
    if isinstance(palette, Colormap):
        return palette
    if isinstance(palette, str):
        if palette in matplotlib.colormaps:
            return matplotlib.colormaps[palette]
        try:
            return sns.color_palette(palette, as_cmap=True)  # type: ignore[return-value]
        except ValueError as error:
            raise FigureError(f"palette={palette!r} is no colour map: {error}") from error
    try:
        return sns.blend_palette(list(palette), as_cmap=True)  # type: ignore[return-value]
    except (ValueError, TypeError) as error:
        raise FigureError(f"palette={palette!r} is no colour map: {error}") from error
