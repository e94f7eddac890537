"""Tooltips of figures: a text for each mark, written as ``<title>`` into the SVG of a page.

The texts stand beside the artists, not in them, so that a figure saved by matplotlib is unchanged.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from matplotlib.artist import Artist
from matplotlib.figure import Figure

__all__ = ["add_titles", "mark_artists", "tip"]

_TEXTS: WeakKeyDictionary[Artist, tuple[str, ...]] = WeakKeyDictionary()
_GROUP = re.compile(r'<g id="[^"]*\btips-(\d+)">')
_DRAWN = re.compile(r"<defs>.*?</defs>|<(?P<tag>path|use|image)\b[^>]*/>", re.DOTALL)


def tip(artist: Artist, *texts: str) -> None:
    """Attach a text to an artist, or one to each mark of a collection, in the order of drawing."""
    _TEXTS[artist] = texts


def mark_artists(figure: Figure) -> list[Sequence[str]]:
    """Give each artist with texts an id that `add_titles` finds; returns the texts by that id's number."""
    found: list[Sequence[str]] = []
    for artist in figure.findobj(lambda artist: artist in _TEXTS):
        if not artist.get_rasterized():  # one image has no marks
            artist.set_gid(f"tips-{len(found)}")
            found.append(_TEXTS[artist])
    return found


def add_titles(svg: str, texts: Sequence[Sequence[str]]) -> str:
    """Put the texts of `mark_artists` into the SVG that matplotlib wrote."""
    for group in reversed(list(_GROUP.finditer(svg))):
        own = texts[int(group[1])]
        if len(own) == 1:
            opening = f"<g><title>{html.escape(own[0])}</title>"
            svg = svg[: group.start()] + opening + svg[group.end() :]
            continue
        marks = (mark for mark in _DRAWN.finditer(svg, group.end()) if mark["tag"])
        parts, end = [svg[: group.start()], "<g>"], group.end()
        for text, mark in zip(own, marks, strict=False):  # the group's marks come first
            parts += [svg[end : mark.end() - 2], f"><title>{html.escape(text)}</title></{mark['tag']}>"]
            end = mark.end()
        svg = "".join([*parts, svg[end:]])
    return svg
