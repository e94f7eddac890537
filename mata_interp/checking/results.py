"""What a check measured, its result, and the report of all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mata_interp.lalm.discovery.experts import Flips
from mata_interp.markup import frame, table

from .report_text import count_verdicts, render

__all__ = ["CheckReport", "CheckResult", "Measurement", "NotApplicable", "Verdict"]

Verdict = Literal["pass", "fail", "error", "not comparable", "not applicable"]


class NotApplicable(Exception):
    """A check that cannot be made on this model or prompt. The message is the reason."""


@dataclass(frozen=True)
class Measurement:
    """What one check measured.

    Attributes:
        measured: the measurement in words and numbers.
        difference: the number that must not exceed ``bound``. NaN exceeds it.
        bound: the largest difference that passes; see :mod:`mata_interp.checking.bounds`.
        flaw: a fault besides the difference; "" if there is none.
        weak: why a difference within the bound shows nothing, e.g. because an edit has no effect; "" if it
            does show something.
        unsure: why a difference above the bound may be no fault; "" if it is one.
        flips: in how many places of a mixture of experts the compared runs chose other experts.
    """

    measured: str
    difference: float
    bound: float
    flaw: str = ""
    weak: str = ""
    unsure: str = ""
    flips: Flips = field(default_factory=Flips)


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Attributes:
        name: name of the check.
        compared: what it compares.
        measured: the measurement in words; the reason, if nothing was measured.
        difference: the number that was compared with the bound; None if nothing was measured.
        bound: the largest difference that passes; None if nothing was measured.
        verdict: ``"pass"``; ``"fail"``; ``"error"`` (the check itself failed, which says nothing about the
            model); ``"not comparable"`` (above the bound, which may be no fault on this model); or
            ``"not applicable"``.
        remedy: what to do; "" after a pass.
    """

    name: str
    compared: str
    measured: str
    difference: float | None
    bound: float | None
    verdict: Verdict
    remedy: str


@dataclass(frozen=True, repr=False)
class CheckReport:
    """The result of `mi.check`. ``print(report)`` shows a table.

    Attributes:
        model: name of the model.
        about: its class, dtype, device, attention implementation, the prompt and package versions.
        results: one result per check.
        excluded: items that were left out, one line each: id, field, reason.

    Examples:
        >>> from mata_interp.checking import CheckReport
        >>> report = CheckReport("mine", {}, ())
        >>> report, report.ok
        (<CheckReport of 'mine': 0 of 0 checks passed, 0 failed, 0 not applicable>, True)
    """

    model: str
    about: dict[str, str]
    results: tuple[CheckResult, ...]
    excluded: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check passed or is not applicable."""
        return all(result.verdict in ("pass", "not applicable") for result in self.results)

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """Results of the checks that failed, or that could not be measured because of an error."""
        return tuple(result for result in self.results if result.verdict in ("fail", "error"))

    def __getitem__(self, name: str) -> CheckResult:
        """The result of the check of this name.

        Raises:
            KeyError: there is no such check.
        """
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(f"No check {name!r}. Checks: {', '.join(result.name for result in self.results)}.")

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, fit for JSON."""
        return {
            "model": self.model,
            "ok": self.ok,
            "about": self.about,
            "results": [asdict(result) for result in self.results],
            "excluded": list(self.excluded),
        }

    def _repr_html_(self) -> str:
        """The results as a table, for notebooks."""
        marks = {"pass": "✓ pass", "fail": "✗ fail", "error": "✗ error"}
        rows = [
            (marks.get(result.verdict, result.verdict), result.name, result.compared, result.measured)
            for result in self.results
        ]
        remedies = " ".join(f"{result.name}: {result.remedy}" for result in self.results if result.remedy)
        title = f"Check of {self.model}: {count_verdicts(self.results)}"
        return frame(title, table(("result", "check", "compares", "measured"), rows, remedies))

    def __repr__(self) -> str:
        return f"<CheckReport of {self.model!r}: {count_verdicts(self.results)}>"

    def __str__(self) -> str:
        return render(self.model, self.about, self.results, self.excluded)
