"""Criteria: ways to find the layers in which text reads the audio, by kind one module each.

See `mata_interp.fusion.criteria.registry` for what a criterion is and how to add one, and
`mata_interp.fusion.windows` for how a window is derived from its numbers.
"""

from __future__ import annotations

from collections.abc import Collection

from . import attention, attribution, depth, knockout, lens, restoration, saliency
from .registry import Criterion, criterion, select_criteria

__all__ = ["CRITERIA", "MODULES", "Criterion", "criteria_named", "criterion"]

MODULES = (knockout, restoration, attribution, saliency, lens, attention, depth)
"""In the order of figures and tables: causal criteria first."""

CRITERIA: dict[str, Criterion] = {one.name: one for module in MODULES for one in module.CRITERIA}
"""Name -> criterion."""


def criteria_named(names: Collection[str] | None = None) -> list[str]:
    """Names of the criteria to measure, in the order of :data:`CRITERIA`. It needs no model.

    Args:
        names: names asked for; None for all.

    Raises:
        ArgumentError: one of them does not exist. The message names the nearest one and all that exist.

    >>> criteria_named(["depth", "knockout_text"])
    ['knockout_text', 'depth']
    """
    return select_criteria(CRITERIA, names)
