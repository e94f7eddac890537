"""Values of data files: what counts as missing, values as text, and values quoted in messages."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np

__all__ = ["is_missing", "plain_value", "quote", "text_of"]

LIMIT = 200  # characters of a quoted value

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120
_REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxdict = 12


def quote(value: Any) -> str:
    """The value's repr, shortened to 200 characters at most, for messages.

    Examples:
        >>> quote("a dog")
        "'a dog'"
        >>> len(quote(list(range(10_000))))
        43
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value):,} bytes>"
    text = _REPR.repr(value)
    return text if len(text) <= LIMIT else f"{text[: LIMIT - 30]}...{text[-20:]}"


def is_missing(value: Any) -> bool:
    """Whether a value means "no value": None, NaN, or the missing values of pandas (``NA`` and ``NaT``)."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return type(value).__name__ in ("NAType", "NaTType")


def plain_value(value: Any) -> Any:
    """A value in Python's own types: arrays as lists, NumPy scalars as numbers, missing values as None."""
    if is_missing(value):
        return None
    if isinstance(value, np.ndarray):
        return [plain_value(part) for part in value.tolist()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [plain_value(part) for part in value]
    return value


def text_of(value: Any) -> str | None:
    """A value as text without surrounding space; ``""`` if it is missing, None if it is not a text.

    A number is a text; so is a list of texts, joined by commas.
    """
    value = plain_value(value)
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value).strip()
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return None
