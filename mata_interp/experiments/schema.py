"""Frozen dataclasses to JSON and back, with the version of the format checked on reading."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from math import nan
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import RunError
from ..execution.files import read_json, write_json

__all__ = ["VERSION", "from_plain", "read_versioned", "write_versioned"]

VERSION = 3
"""Version of ``study.json``, ``sham.json`` and ``effects.json``. Version 1 had no condition roles; version 2
had neither chance, power and claims of no harm, nor a dose for each draw of random layers."""

T = TypeVar("T")


def write_versioned(path: Path, **content: Any) -> None:
    """Write ``content`` and the format's `VERSION` as JSON; dataclasses become objects, NaN becomes null."""
    write_json(path, {"version": VERSION, **content})


def read_versioned(path: Path) -> dict[str, Any]:
    """Read what `write_versioned` wrote.

    Raises:
        RunError: The file cannot be read or has another version.
    """
    content = read_json(path)
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise RunError(
            f"{path} has format version {version or 'none'}, and this mata_interp reads version {VERSION}. "
            "Run the study again in another folder (out=...), or use the mata_interp that wrote it."
        )
    return content


def from_plain(kind: type[T], data: Any, path: Path | str = "data") -> T:
    """Build a dataclass from parsed JSON, nested ones included; null becomes NaN where a float is expected.

    Args:
        kind: The dataclass. Fields may be dataclasses (read by their ``from_dict`` if they have one), tuples
            of one type, mappings, numbers and strings, or any of these or None.
        data: What the JSON holds.
        path: The file, for the error.

    Raises:
        RunError: A field without a default is missing, a field is unknown, or a value is not of the type that
            the dataclass declares.
    """
    return _build(kind, data, str(path))


def _build(kind: Any, data: Any, place: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (types.UnionType, Union):
        if data is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), data, place)
    if hasattr(kind, "from_dict") and isinstance(data, Mapping):
        return kind.from_dict(data)
    if is_dataclass(kind) and isinstance(data, Mapping):
        return _build_dataclass(kind, data, place)
    if origin is tuple and isinstance(data, Sequence) and not isinstance(data, str):
        return tuple(_build(arguments[0], value, f"{place}[{n}]") for n, value in enumerate(data))
    if origin is not None and issubclass(origin, Mapping) and isinstance(data, Mapping):
        return {key: _build(arguments[1], value, f"{place}.{key}") for key, value in data.items()}
    if kind is float and (data is None or isinstance(data, int | float)):
        return nan if data is None else float(data)
    if isinstance(kind, type) and isinstance(data, kind):
        return data
    raise RunError(f"{place} is {data!r}, which is not a valid {getattr(kind, '__name__', kind)}.")


def _build_dataclass(kind: Any, data: Mapping[str, Any], place: str) -> Any:
    types_of = get_type_hints(kind)
    names = {field.name for field in fields(kind)}
    optional = {field.name for field in fields(kind) if field.default is not MISSING}
    if wrong := sorted((names - optional - set(data)) | (set(data) - names)):
        problem = "lacks" if wrong[0] in names else "has the unknown field"
        raise RunError(f"{place} {problem} {wrong[0]!r}: it was not written by this version of mata_interp.")
    return kind(**{name: _build(types_of[name], data[name], f"{place}.{name}") for name in data})
