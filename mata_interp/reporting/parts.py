"""The parts of a page as data: figures, tables, sections. They hold strings, which the template escapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

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
class Key:
    """A headline number: label, value, detail, and the element's data attributes."""

    label: str
    value: str
    detail: str = ""
    data: Mapping[str, str] = field(default_factory=dict)


Content = (
    tuple[Literal["text"], str]
    | tuple[Literal["figure"], FigurePart]
    | tuple[Literal["table", "folded"], Table]
    | tuple[Literal["facts"], Sequence[tuple[str, str]]]
    | tuple[Literal["html"], Markup]
)


@dataclass(frozen=True)
class Section:
    """A section of the page with its heading, and a style and a script of this package."""

    id: str
    title: str
    content: Sequence[Content]
    style: str = ""
    script: str = ""


@dataclass(frozen=True)
class Page:
    """The whole page."""

    kicker: str
    title: str
    answer: Sequence[str]
    keys: Sequence[Key] = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()


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
