"""Matplotlib figures as SVG inside a page: text stays text, ids are unique, and the bytes are reproducible.

matplotlib writes a whole file: an XML prologue, a time stamp, a global ``<style>`` and ids such as
``axes_1`` that every figure repeats. These collide on a page of many figures, so they are removed or renamed.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from .palette import RC
from .theme import themed
from .tooltips import add_titles, mark_artists

WIDE, NARROW = 7.6, 3.9  # inches: the column of the page on a screen or on paper, and on a phone


@contextmanager
def figure_style(name: str) -> Iterator[None]:
    """The style of every figure; ``name`` seeds the ids of matplotlib, so that figures are reproducible."""
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):  # type: ignore[arg-type]
        yield


def to_svg(figure: Figure, name: str, label: str) -> Markup:
    """``figure`` as one ``<svg>``; ``name`` prefixes its ids, ``label`` is the text for screen readers."""
    texts = mark_artists(figure)
    stream = io.StringIO()
    with warnings.catch_warnings():
        # the browser draws the text, so a glyph that matplotlib's font lacks does not matter
        warnings.filterwarnings("ignore", message=".*missing from font.*")
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(stream, format="svg", dpi=200, metadata=metadata, facecolor="none")
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style\b.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'(xlink:href)="#([^"]+)"', rf'\1="#{name}-\2"', text)
    text = re.sub(r"font(-family)?: ([^;\"']*)'DejaVu Sans'[^;\"]*", r"font\1: \2inherit", text)
    opening, rest = themed(text).split(">", 1)
    box = re.search(r'viewBox="[^"]+"', opening)
    assert box is not None, "matplotlib wrote an SVG without a viewBox"
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box.group()} role="img" '
    head += f'aria-label="{html.escape(label)}" style="max-width:{figure.get_figwidth():.2f}in">'
    return Markup(head + add_titles(re.sub(r"\s*\n\s*", "\n", rest).strip(), texts))


def responsive(draw: Callable[[float], Figure], name: str, label: str) -> Markup:
    """Draw the figure twice, for a wide column and for a phone; the style sheet shows the one that fits.

    One drawing scaled down would be unreadable on a phone.
    """
    parts = []
    for kind, width in (("wide", WIDE), ("narrow", NARROW)):
        with figure_style(f"{name}-{kind}"):
            figure = draw(width)
            parts.append(f'<div class="{kind}">{to_svg(figure, f"{name}-{kind}", label)}</div>')
    return Markup("".join(parts))
