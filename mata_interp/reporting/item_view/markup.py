"""The item view as HTML: skeleton, data, style and script. All text of items stands in the data."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from markupsafe import Markup

from ...execution.files import plain
from .view_data import ViewData

__all__ = ["item_view_markup", "script", "style"]

SCRIPTS = (
    "arrays.js",
    "player.js",
    "tracks.js",
    "head_map.js",
    "item_table.js",
    "item_texts.js",
    "address.js",
    "pointer.js",
    "view_drawing.js",
    "view_controls.js",
    "view.js",
)


def item_view_markup(data: ViewData) -> Markup:
    """The view of some items; the page also needs `style` and `script`."""
    text = json.dumps(plain(data.to_dict()), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = (
        text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    )  # cannot end the element
    element = f'<script type="application/json" class="iv-data">{text}</script>'
    return Markup(_file("view.html").replace("<!-- data -->", element))


@cache
def style() -> str:
    """The style sheet, which touches nothing outside of the view."""
    return _file("view.css")


@cache
def script() -> str:
    """The script, in a scope of its own."""
    parts = "\n".join(_file(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def _file(name: str) -> str:
    return (resources.files("mata_interp.reporting.item_view") / name).read_text("utf-8")
