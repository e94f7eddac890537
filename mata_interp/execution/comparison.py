"""The first difference between two JSON values, for messages about folders that hold something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["first_difference", "short"]


def first_difference(there: Any, here: Any, field: str = "") -> tuple[str, Any, Any] | None:
    """The first field in which two JSON values differ: (a name like ``model.dtype``, there, here)."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in [*here, *(key for key in there if key not in here)]:
            name = f"{field}.{key}" if field else str(key)
            if difference := first_difference(there.get(key), here.get(key), name):
                return difference
        return None
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, (a, b) in enumerate(zip(there, here, strict=True)):
            if difference := first_difference(a, b, f"{field}[{index}]"):
                return difference
        return None
    return None if there == here and type(there) is type(here) else (field, there, here)


def short(value: Any, limit: int = 120) -> str:
    """The value as Python writes it, cut to ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
