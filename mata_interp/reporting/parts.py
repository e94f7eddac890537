"""What a page is made of, as data: figures, tables, sections. Only strings; the template escapes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from markupsafe import Markup


@dataclass(frozen=True)
class FigurePart:
    """A figure; the caption says how to read it and what it shows."""

    id: str
    svg: Markup
    title: str
    caption: str


@dataclass(frozen=True)
class Row:
    """A row of a table; ``look`` is a class of the style sheet ("primary", "sham") or empty."""

    cells: Sequence[str]
    look: str = ""


@dataclass(frozen=True)
class Block:
    """Rows under a heading (none, if the title is empty)."""

    rows: Sequence[Row]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table; ``words`` sets all columns left and lets them wrap."""

    title: str
    columns: Sequence[str]
    blocks: Sequence[Block]
    caption: str = ""
    words: bool = False


@dataclass(frozen=True)
class Key:
    """A number that a reader should not have to look for."""

    label: str
    value: str
    detail: str = ""


Content = (
    tuple[Literal["text"], str]
    | tuple[Literal["figure"], FigurePart]
    | tuple[Literal["table", "folded"], Table]
    | tuple[Literal["facts"], Sequence[tuple[str, str]]]
)


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own."""

    id: str
    title: str
    content: Sequence[Content]


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
