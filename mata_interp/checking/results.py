"""What a check says: a line each, and all of them as a report."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from mata_interp.lalm.discovery.experts import Flips

from .bounds import SUMS

if TYPE_CHECKING:
    from .context import CheckContext

__all__ = [
    "CHECKS",
    "Check",
    "CheckReport",
    "CheckResult",
    "Measurement",
    "NotApplicable",
    "register_check",
    "run_check",
]

Verdict = Literal["pass", "fail", "not comparable", "not applicable"]
WEAK = (
    "This shows nothing either way: check with a prompt whose answer depends on the sound, "
    "mi.check(lalm, lalm.prompt(item))."
)
ROUNDING = (
    "If this passes in float32 (--dtype float32), it is half precision that rounds so much on this model. "
    "If not:"
)
UNSURE = (
    "This is neither shown nor refuted: check in float32 (--dtype float32), and if that passes, compare "
    "a few results in half precision with float32 before you trust them."
)


class NotApplicable(Exception):
    """A check that cannot be made on this model or prompt; the message is the reason."""


@dataclass(frozen=True)
class Measurement:
    """What one check measured.

    Attributes:
        measured: in words and numbers.
        off: the number that must not exceed ``bound``; NaN does.
        bound: see :mod:`mata_interp.checking.bounds`.
        flaw: what is wrong besides that; "" for nothing.
        weak: why being within the bound shows nothing, as where an edit has no effect; "" where it does.
        unsure: why it need be no fault to exceed the bound; "" where it is one.
    """

    measured: str
    off: float
    bound: float
    flaw: str = ""
    weak: str = ""
    unsure: str = ""


@dataclass(frozen=True)
class Check:
    """One check: its name, what it compares, what to do if it fails, and the function that measures."""

    name: str
    compared: str
    remedy: str
    measure: Callable[[CheckContext], Measurement]


CHECKS: list[Check] = []
"""All checks, in the order in which they are made."""


def register_check(
    name: str, compared: str, remedy: str
) -> Callable[[Callable[[CheckContext], Measurement]], Callable[[CheckContext], Measurement]]:
    """Register a function that measures."""

    def add(measure: Callable[[CheckContext], Measurement]) -> Callable[[CheckContext], Measurement]:
        CHECKS.append(Check(name, compared, remedy, measure))
        return measure

    return add


@dataclass(frozen=True)
class CheckResult:
    """One check's outcome.

    Attributes:
        name: of the check.
        compared: with what.
        measured: what came out, in words; of a check that is not applicable, the reason.
        off, bound: the number that was held against the bound; None where there is none.
        verdict: ``"pass"``, ``"fail"``, ``"not comparable"`` (off by more than the bound, which on this model
            need be no fault) or ``"not applicable"``.
        remedy: what to do; "" after a pass.
    """

    name: str
    compared: str
    measured: str
    off: float | None
    bound: float | None
    verdict: Verdict
    remedy: str


def run_check(check: Check, subject: CheckContext) -> CheckResult:
    """The line of one check; one that raises has failed, and the others go on."""
    subject.flips.clear()
    try:
        found = check.measure(subject)
    except NotApplicable as reason:
        return CheckResult(check.name, check.compared, str(reason), None, None, "not applicable", "")
    except Exception as error:  # whatever a new model may do
        reason = " ".join(str(error).split()) or "no reason given"
        told = f"{type(error).__name__}: {reason}"
        return CheckResult(check.name, check.compared, told, None, None, "fail", check.remedy)
    flips = sum(subject.flips, Flips())
    notes = [found.flaw, found.weak, f"{flips}: compared with the same experts" if flips.flipped else ""]
    verdict, remedy = _judged(found, check.remedy, subject.half)
    if verdict == "not comparable":
        notes.append(found.unsure)
    measured = "; ".join(filter(None, (found.measured, *notes)))
    return CheckResult(check.name, check.compared, measured, found.off, found.bound, verdict, remedy)


def _judged(found: Measurement, remedy: str, half: bool) -> tuple[Verdict, str]:
    """The verdict, and what to do."""
    if found.flaw:
        return "fail", remedy
    if found.off <= found.bound:
        return ("fail", WEAK) if found.weak else ("pass", "")
    if found.unsure:
        return "not comparable", UNSURE
    # sums of masses are float32 whatever the model is
    rounds = half and found.bound > SUMS[torch.float32]
    return "fail", f"{ROUNDING} {remedy}" if rounds else remedy


@dataclass(frozen=True)
class CheckReport:
    """What `mi.check` found; printed, it is a table.

    Attributes:
        model: its name.
        about: class, dtype, device, attention, versions; what was asked of it.
        lines: one a check.
    """

    model: str
    about: dict[str, str]
    lines: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no line failed, and none is left undecided."""
        return all(line.verdict in ("pass", "not applicable") for line in self.lines)

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        return tuple(line for line in self.lines if line.verdict == "fail")

    def __getitem__(self, name: str) -> CheckResult:
        """The line of a check by its name."""
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(f"No check {name!r}: they are {', '.join(line.name for line in self.lines)}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON."""
        return {
            "model": self.model,
            "ok": self.ok,
            "about": self.about,
            "lines": [asdict(line) for line in self.lines],
        }

    def __str__(self) -> str:
        short = {"not applicable": "--", "not comparable": "??"}
        rows = [("", "check", "measured", "bound")]
        for line in self.lines:
            bound = "" if line.bound is None else "exact" if line.bound == 0 else f"{line.bound:.0e}"
            measured = line.measured if line.off is not None else "see below"
            first, *more = _wrapped(measured)
            rows.append((short.get(line.verdict, line.verdict), line.name, first, bound))
            rows += [("", "", f"  {part}", "") for part in more]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        notes = []
        for line in self.lines:
            if line.verdict == "not applicable":
                notes.append(f"{line.name}: not applicable: {line.measured}")
            elif line.verdict == "not comparable":
                notes.append(f"{line.name}: NOT COMPARABLE ({line.compared}). {line.remedy}")
            elif line.verdict == "fail":
                why = "" if line.off is not None else f" {line.measured}."
                notes.append(f"{line.name}: FAILED ({line.compared}).{why} {line.remedy}")
        about = ", ".join(value if name != "class" else f"a {value}" for name, value in self.about.items())
        count = Counter(line.verdict for line in self.lines)
        counts = f"{count['pass']} of {len(self.lines)} checks passed, {count['fail']} failed, "
        counts += f"{count['not comparable']} not comparable, " if count["not comparable"] else ""
        counts += f"{count['not applicable']} not applicable"
        told = [textwrap.fill(note, 100, subsequent_indent="  ", break_on_hyphens=False) for note in notes]
        parts = [f"{self.model} ({about})", "\n".join(table), *told, counts]
        return "\n\n".join(parts)


def _wrapped(measured: str) -> list[str]:
    """What was measured as lines of the table."""
    return textwrap.wrap(measured, 72, break_long_words=False, break_on_hyphens=False) or [""]
