"""What a criterion is, and all of them by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["CRITERIA", "Criterion", "criterion"]

Measure = Callable[["ItemContext"], np.ndarray]


@dataclass(frozen=True)
class Criterion:
    """One way to look for fusion layers.

    Attributes:
        name: in tables and files.
        label: for people.
        evidence: ``"causal"`` (something was changed and the answer looked at), ``"gradient"``,
            ``"attention"`` or ``"prior"`` (nothing was measured).
        reads: whose reading it is about: ``"into text"``, ``"out at the last token"`` or ``"either"``.
        cut: how a window is cut from its profile: a name of `mata_interp.fusion.windows.CUTS`.
        unit: of the profile.
        formula: of one number of it.
        source: whose formula it is.
        measure: from a case to float64 [layers].
    """

    name: str
    label: str
    evidence: str
    reads: str
    cut: str
    unit: str
    formula: str
    source: str
    measure: Measure


CRITERIA: dict[str, Criterion] = {}
"""Name -> criterion."""


def criterion(
    name: str, label: str, evidence: str, reads: str, cut: str, unit: str, formula: str, source: str
):
    """Put a measure into the registry."""

    def register(measure: Measure) -> Measure:
        CRITERIA[name] = Criterion(name, label, evidence, reads, cut, unit, formula, source, measure)
        return measure

    return register
