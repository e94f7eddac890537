"""Warnings of runs, shown at the line of the user's own code."""

from __future__ import annotations

import sys
import warnings

from ..errors import RunWarning

__all__ = ["warn"]

_PACKAGE = __name__.partition(".")[0]


def warn(message: str) -> None:
    """Issue a `RunWarning` at the nearest caller outside this package."""
    level, frame = 1, sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RunWarning, stacklevel=level)
