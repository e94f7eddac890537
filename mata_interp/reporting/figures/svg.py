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
from typing import Any, Literal

import matplotlib.style
from markupsafe import Markup
from matplotlib.figure import Figure

from ...compat import kept_font_subsets
from ...plot import data
from ..exports.tables import csv_text
from ..parts import FigurePart
from .palette import RC
from .theme import themed
from .tooltips import add_titles, mark_artists

WIDE, NARROW = 7.6, 3.9  # inches: the column of the page on a screen or on paper, and on a phone


@contextmanager
def figure_style(name: str) -> Iterator[None]:
    """The style of every figure; ``name`` seeds the ids of matplotlib, so that figures are reproducible."""
    style: dict[str, Any] = {**RC, "svg.hashsalt": name, "pdf.fonttype": 42}
    with matplotlib.style.context(style, after_reset=True):  # whatever style the user has set
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
    return _both(draw, name, label)[0]


def figure_part(id: str, draw: Callable[[float], Figure], label: str, title: str, caption: str) -> FigurePart:
    """A figure of a page, with the numbers that are drawn in it.

    Args:
        id: of the element; also the name of the figure's files.
        draw: draws the figure in a width in inches, with functions whose numbers `plot.data` returns.
        label: what the figure shows, for screen readers.
        title, caption: of the figure.
    """
    svg, figure = _both(draw, id, label)
    with figure_style(id):
        pdf = vector_file(figure, "pdf")
    return FigurePart(id, svg, title, caption, csv_text(data(figure)), pdf, draw)


def vector_file(figure: Figure, kind: Literal["svg", "pdf"]) -> bytes:
    """A figure as a file of its own: the same bytes every time.

    In a PDF file, characters that DejaVu Sans lacks are boxes; an SVG file keeps them as text.
    """
    stream = io.BytesIO()
    with warnings.catch_warnings(), kept_font_subsets():
        warnings.filterwarnings("ignore", message=".*missing from font.*")
        figure.savefig(stream, format=kind, metadata={{"svg": "Date", "pdf": "CreationDate"}[kind]: None})
    return stream.getvalue()


def _both(draw: Callable[[float], Figure], name: str, label: str) -> tuple[Markup, Figure]:
    """The markup of both drawings, and the wide figure."""
    parts, figures = [], []
    for kind, width in (("wide", WIDE), ("narrow", NARROW)):
        with figure_style(f"{name}-{kind}"):
            figures.append(draw(width))
            parts.append(f'<div class="{kind}">{to_svg(figures[-1], f"{name}-{kind}", label)}</div>')
    return Markup("".join(parts)), figures[0]
