"""Tooltips of figures: the text of each mark as ``<title>`` in the SVG of a page."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from matplotlib.figure import Figure

from ...plot.tooltips import tips_of
from ..wording import printable

__all__ = ["add_titles", "mark_artists"]

_GROUP = re.compile(r'<g id="[^"]*\btips-(\d+)">')
_DRAWN = re.compile(r"<defs>.*?</defs>|<(?P<tag>path|use|image)\b[^>]*/>", re.DOTALL)


def mark_artists(figure: Figure) -> list[Sequence[str]]:
    """Give each artist with texts an id that `add_titles` finds; returns the texts by that id's number."""
    texts: list[Sequence[str]] = []
    for artist in figure.findobj():
        of_marks = tips_of(artist)
        if of_marks is not None and not artist.get_rasterized():  # one image has no marks
            artist.set_gid(f"tips-{len(texts)}")
            texts.append(of_marks)
    return texts


def add_titles(svg: str, texts: Sequence[Sequence[str]]) -> str:
    """Put the texts of `mark_artists` into the SVG that matplotlib wrote."""
    for group in reversed(list(_GROUP.finditer(svg))):
        lines = texts[int(group[1])]
        if len(lines) == 1:
            opening = f"<g><title>{_escaped(lines[0])}</title>"
            svg = svg[: group.start()] + opening + svg[group.end() :]
            continue
        marks = (mark for mark in _DRAWN.finditer(svg, group.end()) if mark["tag"])
        parts, end = [svg[: group.start()], "<g>"], group.end()
        for text, mark in zip(lines, marks, strict=False):  # the group's marks come first
            if not text:
                continue
            parts += [svg[end : mark.end() - 2], f"><title>{_escaped(text)}</title></{mark['tag']}>"]
            end = mark.end()
        svg = "".join([*parts, svg[end:]])
    return svg


def _escaped(text: str) -> str:
    """A text of several lines for SVG, without control characters."""
    return html.escape("\n".join(printable(line) for line in text.split("\n")))
