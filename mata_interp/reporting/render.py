"""Templates to HTML. All that enters a page is escaped, except this package's SVG, styles and scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from .exports import page_drawings, page_files
from .glossary import Glossary

__all__ = ["render", "render_page", "script_source", "style_sheet"]


def render(template: str, **values: Any) -> str:
    """Render the template of this package with that name; a missing value is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = style_sheet()
    environment.filters["plain_json"] = _plain_json
    return environment.get_template(template).render(**values)


def render_page(page: Any, version: str) -> str:
    """Render `parts.Page`: its sections' styles and scripts stand on the page once each."""
    styles = _once(section.style for section in page.sections)
    scripts = [
        script_source("page.js"),
        script_source("files.js"),
        *_once(section.script for section in page.sections),
    ]
    return render(
        "report.jinja",
        page=page,
        version=version,
        styles=[Markup(style) for style in styles],
        scripts=[Markup(script) for script in scripts],
        script_hashes=[script_hash(script) for script in scripts],
        glossary=Glossary(page.glossary),
        files=page_files(page),
        drawings=page_drawings(page),
    )


def style_sheet() -> Markup:
    """The style sheet of this package's pages."""
    return Markup(_source("style.css"))


def script_source(name: str) -> str:
    """A script of this package."""
    return _source(name)


def script_hash(script: str) -> str:
    """The source expression that lets this inline script run under the page's Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _source(name: str) -> str:
    return (resources.files("mata_interp.reporting") / "templates" / name).read_text("utf-8")


def _once(texts: Any) -> Sequence[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _plain_json(value: Mapping[str, Any] | Sequence[Any]) -> Markup:
    """JSON that cannot end its script element, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
