"""Interventions as files hold them: written with the hash of their source, and read even where unknown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from mata_interp.errors import InterventionError
from mata_interp.interventions.attention_edit import AttentionEdit
from mata_interp.interventions.protocol import SiteContext
from mata_interp.interventions.rules import MissingRuleError
from mata_interp.ranges import brief

from .registry import from_dict, to_dict

__all__ = ["MissingMethod", "describe", "read_method", "record_of"]


@dataclass(frozen=True)
class MissingMethod:
    """A method that a file names and that cannot be made here: it is shown, and refuses to act.

    Attributes:
        name: of its class.
        reason: why it cannot be made.
        text: what the file holds, as JSON.
    """

    name: str
    reason: str
    text: str
    site = "logits"  # which is never left out for want of layers
    queries, phase = "last", "both"

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that the file names."""
        return tuple(json.loads(self.text).get("layers", ()))

    def edit(self, x: Tensor, context: SiteContext) -> Tensor:
        """Raises an InterventionError."""
        raise self.error()

    def error(self) -> InterventionError:
        """What to say to a user who wants to apply it."""
        return InterventionError(f"The method {self.name} cannot be used here: {self.reason}")


def record_of(part: Any) -> dict[str, Any]:
    """An intervention as plain data, ready for JSON: what identifies it in a manifest.

    An AttentionEdit is written as by its own ``to_dict``, with the SHA-256 of its rule's source where the
    rule is not of this package; other methods with their name and, where their class is not of this package,
    with the SHA-256 of its source.

    Args:
        part: an AttentionEdit, or an instance of a registered class.

    Raises:
        InterventionError: its class is not registered.
    """
    if isinstance(part, MissingMethod):
        return json.loads(part.text)
    return part.to_dict() if isinstance(part, AttentionEdit) else to_dict(part)


def read_method(data: Mapping[str, Any]) -> Any:
    """The intervention that `record_of` wrote; a `MissingMethod` where its class or rule is not known here.

    Args:
        data: plain data, also after a round trip through JSON.
    """
    if "method" not in data:
        try:
            return AttentionEdit.from_dict(data)
        except MissingRuleError as error:
            name = f"AttentionEdit with rule {data['rule']!r}"
            return MissingMethod(name, str(error), json.dumps(dict(data), sort_keys=True))
    try:
        return from_dict(data)
    except (InterventionError, TypeError) as error:
        return MissingMethod(str(data["method"]), str(error), json.dumps(dict(data), sort_keys=True))


def describe(part: Any) -> str:
    """An intervention in one line: its name, formula and settings.

    Args:
        part: any intervention.
    """
    if isinstance(part, MissingMethod):
        return f"{part.name} (cannot be made here: {part.reason})"
    formula = getattr(part, "formula", "")
    if isinstance(part, AttentionEdit) or not formula or not is_dataclass(part):
        return repr(part)
    shown = [each.name for each in fields(part) if each.name != "chosen_on"]  # many clips, and no setting
    settings = ", ".join(f"{name} {_short(getattr(part, name))}" for name in shown)
    return f"{type(part).__name__}: {formula}{f' ({settings})' if settings else ''}"


def _short(value: Any) -> str:
    numbers = isinstance(value, tuple) and bool(value) and all(type(each) is int for each in value)
    return brief(value) if numbers else repr(value)
