"""What a criterion is, and how to write one.

A criterion is a function that takes an `ItemContext` (one item on one model) and returns one number for each
decoder layer with attention, float64 [layers]. To add one:

1. Write the function in a module of this package, under the decorator :func:`criterion`, which turns it into
   a `Criterion`.
2. Name it in the module's ``CRITERIA`` tuple. A new module also has to be named in ``MODULES`` of
   `mata_interp.fusion.criteria`, whose order is that of figures and tables.

The command line, figures and tables find it there. Tests compare each criterion with a plain reference.

**What a criterion may use.** All of it is computed at its first use and shared by the criteria of an item:

======================  =====================================================================================
``layers``              indices of the layers to return numbers for
``decision``            ids of the right and the wrong token; the margin is logit(right) - logit(wrong)
``audio_keys``          which tokens are audio, bool [T + F]
``text_queries``        which suffix tokens are text before the last prompt token, bool [S]
``answer_queries``      which suffix tokens are the last prompt token or forced, bool [S]
``prefill_states``      hidden states of the plain prompt, [layers + 1, T, d]
``suffix_trace``        calls, gradients and states of the S tokens after the audio (one forward and backward)
``last_token_trace``    the same where only its last row is read; can be cheaper
``suffix_runner``       re-runs of the suffix with patched states or keys and values
``answer_scores``       scores of the answers under interventions, as rows over the prefill
``counterfactual``      the context of the same question about another clip
``memo(key, compute)``  shares a result between criteria of one file
======================  =====================================================================================

A criterion that reads ``suffix_trace`` sets ``runs_suffix=True``, one that reads ``prefill_states``
``reads_states=True``. It must not write to the context, except
through ``memo``. It raises `ItemError` where an item lacks what it needs (the item then counts as missing for
this criterion) and `ModelError` where it is not defined on the model (the criterion is then listed in
``FusionProfile.refused``, and the others go on).

**Only some criteria decide the recommended window**: those named in ``DECIDING`` of
`mata_interp.fusion.recommend`, or where these were not measured, those in ``IN_ORDER`` or ``STAND_INS``.
Every criterion gets a window of its own for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mata_interp.errors import ArgumentError, unknown_name
from mata_interp.precision import full_precision

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["Criterion", "criterion", "select_criteria"]

Measure = Callable[["ItemContext"], np.ndarray]
Evidence = Literal["causal", "gradient", "attention", "prior"]
Reads = Literal["into text", "out at the last token", "either"]


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One way to look for fusion layers.

    Attributes:
        name: identifier in tables, files and on the command line.
        label: name in figures and sentences.
        evidence: ``"causal"`` (something was changed and the answer measured), ``"gradient"``,
            ``"attention"`` or ``"prior"`` (nothing was measured).
        reads: whose attention to the audio it is about: ``"into text"``, ``"out at the last token"`` or
            ``"either"``.
        window_rule: how a window is derived from its profile: a key of
            `mata_interp.fusion.windows.WINDOW_RULES`.
        unit: unit of the profile.
        formula: formula of one number of the profile.
        source: reference for the formula.
        measure: function from an item's context to float64 [layers].
        runs_suffix: whether it needs the whole suffix to be run again (``suffix_trace``).
        reads_states: whether it needs the states of the prefill (``prefill_states``).
    """

    name: str
    label: str
    evidence: Evidence
    reads: Reads
    window_rule: str
    unit: str
    formula: str
    source: str
    measure: Measure
    runs_suffix: bool = False
    reads_states: bool = False


def criterion(**attributes: Any) -> Callable[[Measure], Criterion]:
    """Decorator that makes a `Criterion` of its function; the keyword arguments are the other attributes."""
    return lambda measure: Criterion(measure=full_precision()(measure), **attributes)


def select_criteria(known: Mapping[str, Criterion], names: Collection[str] | None) -> list[str]:
    """Names of the criteria to measure, in the order of the registry.

    Args:
        known: the registry.
        names: names asked for; None for all.

    Raises:
        ArgumentError: one of them does not exist.
    """
    if names is None:
        return list(known)
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name not in known:
            raise ArgumentError(unknown_name("criterion", name, known))
    return [name for name in known if name in names]
