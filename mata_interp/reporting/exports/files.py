"""The texts that a page offers as files, and `mata_interp.paper` writes: the same for both."""

from __future__ import annotations

import base64

from ..parts import FigurePart, Page, Table, TextFile, parts_of
from .tables import table_files

__all__ = ["page_drawings", "page_files"]


def page_files(page: Page) -> dict[str, str]:
    """Name and text of each file: figures' numbers, tables in three forms, methods and references."""
    files: dict[str, str] = {}
    for part in parts_of(page):
        files |= _files(part)
    return files


def page_drawings(page: Page) -> dict[str, str]:
    """Name of each figure's PDF file, and its content in base64."""
    figures = [part for part in parts_of(page) if isinstance(part, FigurePart)]
    return {f"{figure.id}.pdf": base64.b64encode(figure.pdf).decode() for figure in figures}


def _files(part: FigurePart | Table | TextFile) -> dict[str, str]:
    if isinstance(part, FigurePart):
        return {f"{part.id}.csv": part.csv}
    return {part.name: part.text} if isinstance(part, TextFile) else table_files(part)
