"""What all methods of the catalogue have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.attention_edit import indices
from mata_interp.interventions.protocol import SiteContext
from mata_interp.interventions.shareable import Shareable

__all__ = ["Composite", "Method"]


@dataclass(frozen=True)
class Described(Shareable):
    """A frozen dataclass with a formula and a source; ``str`` prints the formula with the values."""

    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InterventionError(f"{each.name} of {type(self).__name__} is {value!r}: give a number.")
            object.__setattr__(self, each.name, _hashable(value))

    def __str__(self) -> str:
        from .records import describe

        return describe(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON; `mata_interp.interventions.catalogue.from_dict` reads it back."""
        from .registry import to_dict

        return to_dict(self)


@dataclass(frozen=True)
class Method(Described):
    """A method at one site; see :class:`mata_interp.Intervention`.

    A subclass states ``site``, ``formula`` and ``source``, its own strengths as fields, and ``edit``.

    Attributes:
        layers: decoder layers, from 0; sorted, without repeats.
        queries: ``"last"``, ``"text"`` or ``"all"`` tokens of the prompt.
        phase: ``"prefill"``, ``"decode"`` or ``"both"``.

    Raises:
        InterventionError: layers are no whole numbers, or a strength is not finite.
    """

    site = "scores"
    one_per_layer: ClassVar[bool] = False  # whether another field has one entry for each layer, in order
    layers: tuple[int, ...]
    queries: str = field(default="last", kw_only=True)
    phase: str = field(default="both", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = indices(self.layers, "layers")
        if self.one_per_layer and layers != tuple(self.layers):
            raise InterventionError(
                f"layers of {type(self).__name__} are {self.layers}: they must ascend, one entry for each."
            )
        object.__setattr__(self, "layers", layers)

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """The tensor at the site as it should be; see :class:`mata_interp.Intervention`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Composite(Described):
    """A method that stands for several, which `parts` returns in order."""

    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", indices(self.layers, "layers"))

    @property
    def parts(self) -> tuple[Any, ...]:
        """The interventions that it stands for, in order."""
        raise NotImplementedError


def _hashable(value: Any) -> Any:
    """Tuples in place of lists."""
    return tuple(_hashable(each) for each in value) if isinstance(value, list | tuple) else value
