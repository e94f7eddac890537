"""Figures and pages, for people who would rather look than read tables.

`report` makes the page of a run folder, `listen` hears one clip, `figure` draws a map. All are loaded
when first used: the libraries that draw take a second or two to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {"figure": "maps", "report": "page", "listen": "listening", "Listening": "listening"}

__all__ = ["Listening", "figure", "listen", "report"]

if TYPE_CHECKING:
    from .listening import Listening, listen
    from .maps import figure
    from .page import report


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
