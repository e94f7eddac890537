"""The parts of a page as data: figures, tables, sections. They hold strings, which the template escapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from markupsafe import Markup


@dataclass(frozen=True)
class FigurePart:
    """A figure with its title and caption."""

    id: str
    svg: Markup
    title: str
    caption: str


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
    """A table; ``words`` aligns all columns left and lets them wrap."""

    title: str
    columns: Sequence[str]
    blocks: Sequence[Block]
    caption: str = ""
    words: bool = False


@dataclass(frozen=True)
class Link:
    """A source to cite: its text and its address, which opens only on a click."""

    text: str
    url: str


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
    """

    id: str
    title: str
    content: Sequence[Content]
    style: str = ""
    script: str = ""


@dataclass(frozen=True)
class Page:
    """The whole page.

    Attributes:
        kicker, title: Above the title, and the title.
        answer: The answer in plain sentences, one paragraph each.
        rows: Rows of headline numbers: the effect, the controls.
        about: What method, model and benchmark are: name and a sentence.
        numbers: The answer with all its numbers, in paragraphs, folded.
        notes: Remarks that the reader has to know.
        sections: The rest of the page.
        glossary: Term and meaning; terms are explained where they are used.
    """

    kicker: str
    title: str
    answer: Sequence[str]
    rows: Sequence[KeyRow] = ()
    about: Sequence[tuple[str, str]] = ()
    numbers: Sequence[str] = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    glossary: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> list[Key]:
        """The headline numbers of all rows."""
        return [key for row in self.rows for key in row.keys]


def numbered(sections: Sequence[Section]) -> list[Section]:
    """The sections with ``Figure 1.``, ``Table 1.``, ... before the titles, in the order of the page."""
    seen: Counter[str] = Counter()

    def number(content: Content) -> Content:
        kind, part = content
        if not isinstance(part, FigurePart | Table):
            return content
        name = "Figure" if isinstance(part, FigurePart) else "Table"
        seen[name] += 1
        return kind, replace(part, title=f"{name} {seen[name]}. {part.title}")  # type: ignore[return-value]

    return [
        replace(section, content=[number(content) for content in section.content]) for section in sections
    ]
