"""Figures and HTML pages.

`report` writes the page of a result or of several side by side, `paper.paper` the files for a paper; `listen`
asks about one clip. They are imported when first used, because the drawing libraries take a second or two to
import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "report": "writing",
    "listen": "listening",
    "Listening": "listening",
    "save_listenings": "listening_page",
}

__all__ = ["Listening", "listen", "report", "save_listenings"]

if TYPE_CHECKING:
    from .listening import Listening, listen
    from .listening_page import save_listenings
    from .writing import report


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
