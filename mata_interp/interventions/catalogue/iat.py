"""IAT: raise the scores of the tokens that the model generated itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mata_interp.interventions.attention_edit import AttentionEdit

from .method import Composite
from .registry import register

__all__ = ["Iat"]


@register
@dataclass(frozen=True)
class Iat(Composite):
    """IAT (the authors' code was read: XianguiKang/AdaIAT); the authors edit all layers.

    The query's own token is among the generated keys. The first token of an answer is as without it.

    Attributes:
        strength: a; 0 changes nothing.
    """

    strength: float = 0.8
    formula = "A + a |A| on generated tokens"
    source = "XianguiKang/AdaIAT (code read)"

    @property
    def parts(self) -> tuple[Any, ...]:
        """One attention edit."""
        return (AttentionEdit(self.strength, self.layers, "abs", keys="generated"),)
