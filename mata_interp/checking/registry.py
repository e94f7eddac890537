"""What a check is, and how it becomes a result.

To add a check, write a function from a `CheckContext` to a `Measurement` under the decorator
:func:`register_check`, and name it in the ``CHECKS`` tuple of its module, in the order of the report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mata_interp.lalm.memory import is_out_of_memory, release_memory

from .bounds import SUMS
from .results import CheckResult, Measurement, NotApplicable, Verdict

if TYPE_CHECKING:
    from .context import CheckContext

__all__ = ["MEMORY", "Check", "register_check", "run_check"]

Measure = Callable[["CheckContext"], Measurement]

WEAK = (
    "This shows nothing either way: check with a prompt whose answer depends on the audio, "
    "mi.check(lalm, lalm.prompt(item))."
)
ROUNDING = (
    "If this passes in float32 (--dtype float32), the cause is rounding in half precision on this model. "
    "Otherwise:"
)
UNSURE = (
    "This is neither confirmed nor refuted: check in float32 (--dtype float32), and if that passes, compare "
    "a few results in half precision with float32 before you rely on them."
)
ERROR = "The check itself failed, which says nothing about the model. Please report it with this output."
MEMORY = (
    "This says nothing about the model: check with one shorter prompt, mi.check(lalm, lalm.prompt(item)), or "
    "on a larger device."
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: a statement that is true if the check passes.
        compared: what it compares.
        remedy: what to do if it fails.
        measure: the function that measures.
    """

    name: str
    compared: str
    remedy: str
    measure: Measure


def register_check(*, name: str, compared: str, remedy: str) -> Callable[[Measure], Check]:
    """Decorator that makes a `Check` of a measuring function. The arguments are its attributes."""
    return lambda measure: Check(name=name, compared=compared, remedy=remedy, measure=measure)


def run_check(check: Check, context: CheckContext) -> CheckResult:
    """The result of one check. An exception in it becomes the verdict ``"error"``."""
    try:
        measurement = check.measure(context)
    except NotApplicable as reason:
        return _unmeasured(check, "not applicable", str(reason), "")
    except Exception as error:  # whatever a new model may do, running out of memory included
        reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        unmeasured = ("could not be measured", ERROR)
        if is_out_of_memory(error) or is_out_of_memory(error.__cause__ or error):
            unmeasured = ("memory ran out", MEMORY)
    else:
        return _result(check, measurement, context)
    release_memory()  # not in the except block: the error keeps the tensors of the failed attempt alive
    problem, remedy = unmeasured
    return _unmeasured(check, "error", f"{problem}: {reason}", remedy)


def _result(check: Check, measurement: Measurement, context: CheckContext) -> CheckResult:
    verdict, remedy = _judge(measurement, check.remedy, context.half)
    notes = [measurement.flaw, measurement.weak]
    if measurement.flips.flipped:
        notes.append(f"{measurement.flips}: compared with the same experts")
    if verdict == "not comparable":
        notes.append(measurement.unsure)
    measured = "; ".join(filter(None, (measurement.measured, *notes)))
    return CheckResult(
        check.name, check.compared, measured, measurement.difference, measurement.bound, verdict, remedy
    )


def _unmeasured(check: Check, verdict: Verdict, reason: str, remedy: str) -> CheckResult:
    return CheckResult(check.name, check.compared, reason, None, None, verdict, remedy)


def _judge(measurement: Measurement, remedy: str, half: bool) -> tuple[Verdict, str]:
    """The verdict, and what to do."""
    if measurement.flaw:
        return "fail", remedy
    if measurement.difference <= measurement.bound:
        return ("fail", WEAK) if measurement.weak else ("pass", "")
    if measurement.unsure:
        return "not comparable", UNSURE
    # sums of masses are computed in float32 whatever the dtype of the model
    rounds = half and measurement.bound > SUMS[torch.float32]
    return "fail", f"{ROUNDING} {remedy}" if rounds else remedy
