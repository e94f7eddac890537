"""Dark-mode colours of figures: each colour of the palette beside the one that takes its place.

A figure is drawn once, in the light colours. In the SVG of a page every colour becomes CSS's
``light-dark(light, dark)``, which follows the page's ``color-scheme``; older browsers show the light one.
"""

from __future__ import annotations

import re
from functools import cache

import seaborn as sns
from matplotlib.colors import to_hex

from .palette import AUDIO, CHANGE_MAP, FAINT, INK, PAPER, SHARE_MAP, SOFT, TEXT

__all__ = ["themed"]

PAPER_DARK, INK_DARK, AUDIO_DARK, TEXT_DARK = "#14171a", "#e6e8ea", "#5ab4f0", "#ff9f5a"
DARK = {
    INK: INK_DARK,
    "#262626": INK_DARK,  # seaborn's numbers in light cells
    "#000000": "#ffffff",
    SOFT: "#a9b1b8",
    FAINT: "#3a4148",
    PAPER: PAPER_DARK,
    AUDIO: AUDIO_DARK,
    TEXT: TEXT_DARK,
    "#009e73": "#35c79c",
    "#c44e00": "#f08a3c",
    "#e69f00": "#d99a1e",
    "#f5d06f": "#c9ad5e",
    "#8f6fb0": "#b79ad6",
    "#9a9a9a": "#7f878e",
    "#d4d4d4": "#4a5157",
    "#7a7a7a": "#9aa2a9",
    "#b8c4cc": "#56626b",
    "#b3b3b3": "#5d666d",
    "#e8e8e8": "#2a3036",
}
SHARE_MAP_DARK = sns.blend_palette(["#1b242b", "#1f4a66", "#3f92c8", "#d8effd"], as_cmap=True)
CHANGE_MAP_DARK = sns.blend_palette([TEXT_DARK, PAPER_DARK, AUDIO_DARK], as_cmap=True)

_COLOUR = re.compile(r"\b(fill|stroke): (#[0-9a-f]{6})\b")


def themed(svg: str) -> str:
    """The SVG with both colours of every fill and stroke that has two."""

    def both(match: re.Match[str]) -> str:
        light, dark = match[2], _dark_colours().get(match[2])
        return match[0] if dark is None else f"{match[0]}; {match[1]}: light-dark({light}, {dark})"

    return _COLOUR.sub(both, svg)


@cache
def _dark_colours() -> dict[str, str]:
    colours = {}
    for light, dark in ((SHARE_MAP, SHARE_MAP_DARK), (CHANGE_MAP, CHANGE_MAP_DARK)):
        colours |= {to_hex(light(step)): to_hex(dark(step)) for step in range(light.N)}
    return colours | DARK
