"""Templates to HTML. Everything that enters a page is escaped, except this package's SVG and style sheet."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """Render the template of this package with that name; a missing value is an error."""
    folder = resources.files("mata_interp.reporting") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = style_sheet()
    return environment.get_template(template).render(**values)


def render_page(page: Any, version: str) -> str:
    """Render `parts.Page`: its sections' styles and scripts stand on the page once each."""
    styles = [Markup(section.style) for section in page.sections if section.style]
    scripts = [Markup(section.script) for section in page.sections if section.script]
    return render(
        "report.jinja",
        page=page,
        version=version,
        styles=styles,
        scripts=scripts,
        script_hashes=[script_hash(script) for script in scripts],
    )


def script_hash(script: str) -> str:
    """The source expression that lets this inline script run under the page's Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def style_sheet() -> Markup:
    """The style sheet of this package's pages."""
    folder = resources.files("mata_interp.reporting") / "templates"
    return Markup((folder / "style.css").read_text("utf-8"))
