"""The errors users meet. Each says what is wrong, where, with which value, and what to do about it.

Every class is also the builtin a caller would expect to catch (``ValueError``, ``RuntimeError``).
"""

from __future__ import annotations

__all__ = [
    "BenchmarkError",
    "FusionError",
    "InterventionError",
    "ItemError",
    "MataError",
    "ModelError",
    "RunError",
    "UncheckedWarning",
]


class MataError(Exception):
    """Base of every error that mata_interp raises on purpose."""


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
        """So that it comes whole out of another process."""
        return type(self), (self.item, self.field, self.problem, self.remedy)


class BenchmarkError(MataError, ValueError):
    """A benchmark's file is missing, cannot be read, or lacks what was asked of it."""


class ModelError(MataError, ValueError):
    """The model (or its processor) cannot be traced or edited correctly; the message gives the reason."""


class InterventionError(MataError, ValueError):
    """An intervention names a layer, head, rule or strength that does not exist or makes no sense."""


class FusionError(MataError, ValueError):
    """A criterion does not exist, or the arguments of `fusion_layers` do not fit together."""


class RunError(MataError, RuntimeError):
    """A run folder cannot be written, is half written, or belongs to another model or other data."""


class UncheckedWarning(UserWarning):
    """Numbers are read from a model on which nobody has checked that they are right."""
