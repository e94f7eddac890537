"""The errors users meet. Each says what is wrong, where, with which value, and what to do about it.

Every class is also the builtin a caller would expect to catch (``ValueError``, ``TypeError``,
``RuntimeError``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "BenchmarkError",
    "ExclusionWarning",
    "FigureError",
    "InterventionError",
    "ItemError",
    "MataError",
    "MataWarning",
    "ModelError",
    "RunError",
    "RunWarning",
    "SlowDeviceWarning",
    "UncheckedWarning",
    "unknown_name",
]


class MataError(Exception):
    """Base of every error that mata_interp raises on purpose."""


class MataWarning(UserWarning):
    """Base of every warning that mata_interp issues on purpose."""


class ArgumentError(MataError, ValueError):
    """An argument of a function has a value that does not exist or makes no sense."""


class ArgumentTypeError(MataError, TypeError):
    """An argument of a function has a type that the function does not take."""


class ItemError(MataError, ValueError):
    """One item of a benchmark cannot be used.

    Attributes:
        item: the item's id.
        field: the field at fault, e.g. ``"audio"`` or ``"choices"``.
        problem: what is wrong with it, quoting the value.
        remedy: what the user can do; may be empty.
    """

    def __init__(self, item: str, field: str, problem: str, remedy: str = "") -> None:
        self.item, self.field, self.problem, self.remedy = item, field, problem, remedy
        super().__init__(f"item {item!r}, field {field!r}: {problem}" + (f" {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple:
        """Support pickling, so that the error can be raised in another process."""
        return type(self), (self.item, self.field, self.problem, self.remedy)


class BenchmarkError(MataError, ValueError):
    """A benchmark's file is missing, cannot be read, or lacks a subset, column or item that was requested."""


class ModelError(MataError, ValueError):
    """The model (or its processor) cannot be traced or edited correctly; the message gives the reason."""


class InterventionError(MataError, ValueError):
    """An intervention names a layer, head, rule or strength that does not exist or makes no sense."""


class RunError(MataError, RuntimeError):
    """A run folder cannot be written, is half written, or belongs to another model or other data."""


class FigureError(MataError, ValueError):
    """There is no figure for this kind of data."""


class UncheckedWarning(MataWarning):
    """The model has not been validated with `mi.check`; results may be wrong."""


class SlowDeviceWarning(MataWarning):
    """A model of more than a billion parameters runs on the CPU, where it takes seconds for each forward."""


class ExclusionWarning(MataWarning):
    """Items were left out because they cannot be used; the result names them."""


class RunWarning(MataWarning):
    """A run continues, but its results need attention: items left out, parts damaged, clips reused."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Error text for a name that does not exist: it lists the names that do and suggests the nearest one.

    Args:
        kind: what the name stands for, such as ``"rule"``.
        name: the unknown name.
        known: all names that exist, in the order in which they are listed.

    Example:
        >>> unknown_name("rule", "abz", ["abs", "mul"])
        "No rule 'abz': choose one of abs, mul. Did you mean 'abs'?"
    """
    names = list(known)
    text = f"No {kind} {name!r}: choose one of {', '.join(names)}."
    nearest = difflib.get_close_matches(str(name).lower(), names, n=1)
    return f"{text} Did you mean {nearest[0]!r}?" if nearest else text
