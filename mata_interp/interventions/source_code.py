"""SHA-256 of the source of rules and methods that are not of this package, for the identity of results.

A result under a user's rule depends on the code of that rule: a manifest that names the rule alone would
still match after the rule has changed. The hash covers the functions and classes themselves and those of the
same package that they use.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
from types import CellType, CodeType
from typing import Any

import torch

__all__ = ["is_of_this_package", "source_sha256"]

_SIMPLE = (str, bytes, int, float, complex, bool, type(None))  # whose repr is the same in every process
_LOOKUPS = ("LOAD_GLOBAL", "LOAD_NAME")  # instructions that read a global


def is_of_this_package(value: Any) -> bool:
    """Whether a function or class was defined in this package."""
    return str(getattr(value, "__module__", "")).startswith("mata_interp.")


def source_sha256(value: Any) -> str:
    """SHA-256 of the source of a function or class that is not of this package.

    It covers the source of the function, or of the functions, constants and fields of the class and its
    bases; default arguments and closures; and the functions, classes and constants of the same top-level
    package (or of the same script or notebook) that these use by a global name, and so on. Where Python
    cannot show a source (typed at the prompt), compiled code takes its place; a lambda has both. It covers
    neither other packages nor what is looked up by an attribute, such as ``helpers.scale``.

    Args:
        value: a function, a class, a `functools.partial`, or a callable object.

    Examples:
        >>> def twice(x): return 2 * x
        >>> def square(x): return x**2
        >>> source_sha256(twice) == source_sha256(twice), source_sha256(twice) == source_sha256(square)
        (True, False)
    """
    sources = _Sources()
    sources.add(value)
    digest = hashlib.sha256()
    for entry in sorted(sources.entries):
        digest.update(f"{len(entry)}\n".encode() + entry)
    return digest.hexdigest()


class _Sources:
    """Collects the sources of a value and of what it uses, whatever their order."""

    def __init__(self) -> None:
        self.entries: set[bytes] = set()
        self._visited: dict[int, Any] = {}  # with the objects, so that no other object takes their id

    def add(self, value: Any) -> None:
        """Add a function, class, partial or callable object."""
        if isinstance(value, functools.partial):
            package = str(getattr(value.func, "__module__", "")).split(".")[0]
            for name, part in [*enumerate(value.args), *value.keywords.items()]:
                self._add_used(f"partial {name}", part, package)
            self.add(value.func)
        elif isinstance(value, type):
            self._add_class(value)
        elif inspect.ismethod(value):
            self.add(value.__self__)
            self.add(value.__func__)
        elif inspect.isfunction(value):
            self._add_function(value)
        elif not inspect.isbuiltin(value):  # an object: its class, and its state
            self._add_class(type(value))
            for name, part in getattr(value, "__dict__", {}).items():
                self._add_constant(f"{type(value).__qualname__}.{name}", part)

    def _is_new(self, value: Any) -> bool:
        new = id(value) not in self._visited
        self._visited[id(value)] = value
        return new

    def _add_class(self, cls: type) -> None:
        if not self._is_new(cls):
            return
        for base in cls.__mro__:
            if base is object or is_of_this_package(base):
                continue
            key = f"{base.__module__}.{base.__qualname__}"
            for name, member in vars(base).items():
                function = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if inspect.isfunction(function):
                    self._add_function(function)
                elif name == "__annotations__":
                    self.entries.add(f"{key}.{name}\n{member!r}".encode())
                elif not name.startswith("_"):
                    self._add_constant(f"{key}.{name}", member)

    def _add_function(self, function: Any) -> None:
        function = inspect.unwrap(function)  # reprs of dataclasses are wrapped
        code, package = function.__code__, function.__module__.split(".")[0]
        if is_of_this_package(function) or code.co_filename == "<string>" or not self._is_new(function):
            return  # "<string>": dataclasses made it from the fields
        key = f"{function.__module__}.{function.__qualname__}"
        self.entries.add(f"{key}\n".encode() + _text(function))
        for number, value in enumerate(function.__defaults__ or ()):
            self._add_used(f"{key} default {number}", value, package)
        for name, value in (function.__kwdefaults__ or {}).items():
            self._add_used(f"{key} default {name}", value, package)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            for value in _content(cell):
                self._add_used(f"{key} closure {name}", value, package)
        for name in _global_names(code) & set(function.__globals__):
            self._add_used(f"{key} global {name}", function.__globals__[name], package)

    def _add_used(self, key: str, value: Any, package: str) -> None:
        """Add what a function uses: a function or class of the same package, or a constant."""
        if isinstance(value, type) or inspect.isfunction(value):
            if str(value.__module__).split(".")[0] == package:
                self.add(value)
        elif isinstance(value, functools.partial):
            self.add(value)
        else:
            self._add_constant(key, value)

    def _add_constant(self, key: str, value: Any) -> None:
        """Add a value whose text is the same in every process; of any other, nothing."""
        if isinstance(value, torch.Tensor):
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            self.entries.add(f"{key}\n{value.dtype} {tuple(value.shape)}\n".encode() + content)
        elif _is_simple(value):
            self.entries.add(f"{key}\n{value!r}".encode())


def _content(cell: CellType) -> list[Any]:
    """The content of a closure's cell; nothing where it is not assigned yet."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _is_simple(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_simple, value))
    if isinstance(value, dict):
        return all(_is_simple(name) and _is_simple(part) for name, part in value.items())
    return isinstance(value, _SIMPLE)


def _text(function: Any) -> bytes:
    """The source of a function; its compiled code where Python cannot show the source; a lambda's, both."""
    code = function.__code__
    try:
        source = inspect.getsource(function).encode()
    except (OSError, TypeError):
        return _compiled(code)
    return source + _compiled(code) if function.__name__ == "<lambda>" else source


def _compiled(code: CodeType) -> bytes:
    constants = [value for value in code.co_consts if _is_simple(value)]
    inner = b"".join(_compiled(value) for value in code.co_consts if isinstance(value, CodeType))
    return code.co_code + repr((constants, code.co_names, code.co_varnames)).encode() + inner


def _global_names(code: CodeType) -> set[str]:
    """The names that a function, and the functions inside it, look up among the globals of their module."""
    names = {each.argval for each in dis.get_instructions(code) if each.opname in _LOOKUPS}
    inner = [_global_names(value) for value in code.co_consts if isinstance(value, CodeType)]
    return names.union(*inner)
