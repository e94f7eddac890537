"""The parts of a page as data: figures, tables, sections. They hold strings, which the template escapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FigurePart:
    """A figure with its title and caption; `figures.svg.figure_part` makes one.

    Attributes:
        id: Of the element, and the name of the figure's files.
        svg: The drawings as they stand on the page.
        title, caption: Below or beside the figure.
        csv: The numbers that are drawn, as the text of a CSV file.
        pdf: The wide drawing as a PDF file.
        draw: Draws the figure in a width in inches.
    """

    id: str
    svg: Markup
    title: str
    caption: str
    csv: str
    pdf: bytes
    draw: Callable[[float], Figure]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        cells: The text of each cell.
        look: A class of the style sheet (``"primary"``, ``"sham"``), or empty.
        data: Data attributes of the element: ``{"n": "400"}`` becomes ``data-n="400"``.
    """

    cells: Sequence[str]
    look: str = ""
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Rows of a table under a heading; an empty title gives none."""

    rows: Sequence[Row]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table; ``words`` aligns all columns left and lets them wrap.

    ``name`` is that of its files, without an ending; `numbered` gives each table of a page one of its own.
    """

    title: str
    columns: Sequence[str]
    blocks: Sequence[Block]
    caption: str = ""
    words: bool = False
    name: str = ""


@dataclass(frozen=True)
class Link:
    """A source to cite: its text and its address, which opens only on a click."""

    text: str
    url: str


@dataclass(frozen=True)
class TextFile:
    """A text that a reader takes into a paper: shown folded, with buttons that copy and save it."""

    name: str
    title: str
    text: str


@dataclass(frozen=True)
class JsonPart:
    """Plain data for a section's script, in a ``<script type="application/json">`` with this id."""

    id: str
    value: Any


@dataclass(frozen=True)
class Key:
    """A headline number: label, value, detail, and the element's data attributes.

    ``look`` is a class of the style sheet: ``"harm"``, or empty.
    """

    label: str
    value: str
    detail: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    look: str = ""


@dataclass(frozen=True)
class KeyRow:
    """Headline numbers in a row under a heading."""

    id: str
    title: str
    keys: Sequence[Key]


Content = (
    tuple[Literal["text", "heading", "notice", "command"], str]
    | tuple[Literal["figure"], FigurePart]
    | tuple[Literal["table", "folded"], Table]
    | tuple[Literal["facts"], Sequence[tuple[str, str]]]
    | tuple[Literal["links"], Sequence[Link]]
    | tuple[Literal["file"], TextFile]
    | tuple[Literal["html"], Markup]
    | tuple[Literal["json"], JsonPart]
)
"""What a section holds, in order. ``"html"`` is markup of this package, and is not escaped."""


@dataclass(frozen=True)
class Section:
    """A section of the page with its heading.

    Attributes:
        id: Of the element; the list of contents links to it.
        title: The heading.
        content: What it holds, in order.
        style: CSS of its own, constant text of this package.
        script: JavaScript of its own, constant text of this package; it runs when the document is there.
        leading: Whether it stands before the headline numbers.
    """

    id: str
    title: str
    content: Sequence[Content]
    style: str = ""
    script: str = ""
    leading: bool = False


@dataclass(frozen=True)
class Page:
    """The whole page: the answer, what it is about, leading sections, headline numbers, the other sections.

    Attributes:
        kicker, title: Above the title, and the title.
        answer: The answer in plain sentences, one paragraph each.
        about: What method, model and benchmark are: name and a sentence.
        rows: Rows of headline numbers: the effect, the controls.
        numbers: The answer with all its numbers, in paragraphs, folded.
        notes: Remarks that the reader has to know.
        sections: The rest of the page.
        glossary: Term and meaning; terms are explained where they are used.
    """

    kicker: str
    title: str
    answer: Sequence[str]
    about: Sequence[tuple[str, str]] = ()
    rows: Sequence[KeyRow] = ()
    numbers: Sequence[str] = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    glossary: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> list[Key]:
        """The headline numbers of all rows."""
        return [key for row in self.rows for key in row.keys]


def numbered(sections: Sequence[Section]) -> list[Section]:
    """The sections with ``Figure 1.``, ``Table 1.``, ... before the titles, in the order of the page.

    Each table gets a name for its files, from its title; equal titles are told apart by numbers.
    """
    counts: Counter[str] = Counter()

    def number(content: Content) -> Content:
        kind, part = content
        if not isinstance(part, FigurePart | Table):
            return content
        what = "Figure" if isinstance(part, FigurePart) else "Table"
        counts[what] += 1
        title = f"{what} {counts[what]}. {part.title}"
        if isinstance(part, FigurePart):
            return "figure", replace(part, title=title)
        stem = re.sub(r"[^a-z0-9]+", "-", part.title.lower())[:60].strip("-") or "untitled"
        counts[stem] += 1
        name = f"table-{stem}" + (f"-{counts[stem]}" if counts[stem] > 1 else "")
        return kind, replace(part, title=title, name=name)  # type: ignore[return-value]

    return [
        replace(section, content=[number(content) for content in section.content]) for section in sections
    ]


def parts_of(page: Page) -> Iterator[FigurePart | Table | TextFile]:
    """Everything on a page that a reader can save as a file, in order."""
    for section in page.sections:
        for _, part in section.content:
            if isinstance(part, FigurePart | Table | TextFile):
                yield part


def all_text(page: Page) -> str:
    """All text in which terms are explained."""
    texts = [*page.answer, *page.numbers, *page.notes, *(key.detail for key in page.keys)]
    for section in page.sections:
        for kind, part in section.content:
            if kind == "text":
                texts.append(str(part))
            elif kind in ("figure", "table", "folded"):
                texts.append(part.caption)  # type: ignore[union-attr]
                texts += part.columns if isinstance(part, Table) else []
    return " ".join(texts)
