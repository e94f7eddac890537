"""The section on preregistration: what was registered, when, and whether the study kept to it."""

from __future__ import annotations

from ..experiments import Run
from .parts import Block, Content, Row, Section, Table
from .wording import count, printable

__all__ = ["registration_section", "registration_sentence"]


def registration_section(run: Run) -> Section | None:
    """The registered hypotheses and every deviation; None for a run without a preregistration."""
    check = run.registration
    if check is None:
        return None
    facts = [
        ("File", printable(check.file)),
        ("SHA-256 of the plan", check.sha256),
        ("Registered", printable(check.created)),
    ]
    content: list[Content] = [("text", registration_sentence(run)), ("facts", facts)]
    if check.deviations:
        rows = [
            Row([printable(deviation)], "", {"deviation": str(n)})
            for n, deviation in enumerate(check.deviations)
        ]
        content.append(
            ("table", Table("Deviations from the plan.", ("Deviation",), [Block(rows)], words=True))
        )
    rows = [Row([printable(hypothesis)]) for hypothesis in check.hypotheses]
    table = Table("Registered hypotheses on MATA.", ("Hypothesis",), [Block(rows)], words=True)
    return Section("registration", "Preregistration", [*content, ("folded", table)])


def registration_sentence(run: Run) -> str:
    """Whether the study kept to its plan, in a sentence; empty without a preregistration."""
    check = run.registration
    if check is None:
        return ""
    if check.matches_plan:
        registered = count(len(check.hypotheses), "hypothesis", "hypotheses")
        return (
            f"The study was preregistered and kept to its plan: {registered} on MATA, margins, splits, "
            "settings and tests are those that were written before any answer."
        )
    return (
        f"The study was preregistered and departs from its plan in {count(len(check.deviations), 'point')}: "
        f"{printable(check.deviations[0])}{'; ...' if len(check.deviations) > 1 else '.'}"
    )
