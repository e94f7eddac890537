"""The methods by name; methods as JSON; and a hash of the source of methods that are not ours."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, TypeVar

from mata_interp.errors import InterventionError, unknown_name
from mata_interp.interventions.attention_edit import AttentionEdit
from mata_interp.interventions.source_code import is_of_this_package, source_sha256

from .arrays import Array

__all__ = ["METHODS", "all_methods", "find_method", "from_dict", "register", "source_hash", "to_dict"]

ENTRY_POINTS = "mata_interp.interventions"
"""The group of entry points under which an installed package names its classes of methods."""

Class = TypeVar("Class", bound=type)

_methods: dict[str, type] = {"AttentionEdit": AttentionEdit}

METHODS: Mapping[str, type] = MappingProxyType(_methods)
"""The methods by name, read-only; `register` adds to them."""


def register(method: Class) -> Class:
    """Add a class of methods to `METHODS` under its name, so that its instances can be written as JSON.

    The class is a frozen dataclass with the attributes of :class:`mata_interp.Intervention`, or with
    ``parts``. What `to_dict` writes of it has the hash of its source, and `from_dict` refuses another source.
    A class of the same name is replaced, but for those of this package. An installed package that names its
    classes under the entry points ``mata_interp.interventions`` is imported by `find_method` where a name is
    unknown, and by `all_methods`.

    Args:
        method: the class; it is returned, so that this is a decorator.

    Raises:
        InterventionError: it is not a frozen dataclass, or has the name of a method of this package.

    Example:
        >>> import mata_interp as mi
        >>> from dataclasses import dataclass
        >>> @mi.register
        ... @dataclass(frozen=True)
        ... class Halve:
        ...     layers: tuple
        ...     site, queries, phase = "weights", "last", "both"
        ...     formula = "half the weight of audio, without renormalisation"
        ...     def edit(self, x, context):
        ...         return x.where(~context.columns("audio"), x / 2)
        >>> lalm, item = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")[0]
        >>> bool((lalm.logits(item, Halve((3, 4))) != lalm.logits(item)).any())
        True
    """
    name = method.__name__
    parameters = getattr(method, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise InterventionError(f"{name} is not a frozen dataclass: write @dataclass(frozen=True) above it.")
    earlier = _methods.get(name)
    if earlier is not None and is_of_this_package(earlier) and not is_of_this_package(method):
        raise InterventionError(f"A method of this package is named {name}: choose another name.")
    _methods[name] = method
    return method


def source_hash(method: Any) -> str:
    """SHA-256 of the source of a method's class: what a record of a run needs besides `to_dict`.

    Of a class that is not of this package, it covers what the class uses of its own package, too: see
    `source_sha256` in ``mata_interp.interventions.source_code``.

    Args:
        method: an intervention, or its class.
    """
    cls = method if isinstance(method, type) else type(method)
    if is_of_this_package(cls):
        return hashlib.sha256(inspect.getsource(cls).encode()).hexdigest()
    return source_sha256(cls)


def to_dict(method: Any) -> dict[str, Any]:
    """A method as plain data, fit for JSON.

    Args:
        method: an AttentionEdit or an instance of a class in `METHODS`.

    Raises:
        InterventionError: its class is not registered.

    Example:
        >>> from mata_interp.interventions.catalogue import InstABoost, to_dict
        >>> to_dict(InstABoost([3, 4]))["method"]
        'InstABoost'
    """
    cls = type(method)
    if _methods.get(cls.__name__) is not cls:
        raise InterventionError(f"{cls.__name__} is not registered: write @mi.register above the class.")
    if isinstance(method, AttentionEdit):
        return {"method": cls.__name__} | method.to_dict()
    values = {each.name: _plain(getattr(method, each.name)) for each in fields(method)}
    source = {} if is_of_this_package(cls) else {"source_sha256": source_hash(cls)}
    return {"method": cls.__name__} | source | values


def from_dict(data: Mapping[str, Any]) -> Any:
    """Rebuild a method from `to_dict`, also after a round trip through JSON.

    Args:
        data: without ``"method"``, an AttentionEdit's.

    Raises:
        InterventionError: there is no such method or field, or a method of another source has that name.
    """
    values = dict(data)
    name, written = values.pop("method", "AttentionEdit"), values.pop("source_sha256", None)
    cls = find_method(name)
    if cls is AttentionEdit:
        return AttentionEdit.from_dict(values)
    if written is not None and written != source_hash(cls):
        raise InterventionError(
            f"{name} was recorded with another source than that of the class registered here: register it as "
            "it was."
        )
    wrong = sorted(set(values) - {each.name for each in fields(cls)})
    if wrong:
        raise InterventionError(unknown_name(f"field of {name}", wrong[0], [f.name for f in fields(cls)]))
    return cls(**{field: _read(value) for field, value in values.items()})


def find_method(name: str) -> type:
    """The class of methods of this name, also of an installed package that names it as an entry point.

    Raises:
        InterventionError: there is none; the text says how it would be found.
    """
    if name not in _methods:
        _load_entry_points()
    if name not in _methods:
        raise InterventionError(
            f"{unknown_name('method', name, _methods)} A method of yours is known once the module that "
            "registers it (mi.register) is imported, or its package is installed with the entry point "
            f"{ENTRY_POINTS}."
        )
    return _methods[name]


def all_methods() -> Mapping[str, type]:
    """`METHODS`, those of installed packages among them."""
    _load_entry_points()
    return METHODS


def _load_entry_points() -> None:
    """Import what installed packages name under `ENTRY_POINTS`, so that their methods are registered."""
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()


def _plain(value: Any) -> Any:
    if isinstance(value, Array):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if type(value).__name__ in _methods and is_dataclass(value):
        return to_dict(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise InterventionError(f"{value!r} cannot be written as JSON: use numbers, texts, tuples or Array.")


def _read(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Array.from_dict(value) if "float32" in value else from_dict(value)
    return tuple(_read(each) for each in value) if isinstance(value, list) else value
