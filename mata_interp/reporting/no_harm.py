"""The section on harm and power: claims of no harm, and what each hypothesis could have detected."""

from __future__ import annotations

from collections.abc import Sequence

from ..experiments import ComparisonResult
from ..experiments.no_harm import NoHarmClaim
from ..experiments.power import POWER
from .comparisons import Comparisons, subset_label
from .parts import Block, Content, Row, Section, Table
from .wording import interval, known, number, p_value, points

__all__ = ["no_harm_section"]

UNITS = {"binary": "accuracy, points", "margin": "margin, nats"}


def no_harm_section(comparisons: Comparisons) -> Section | None:
    """Both tables; None for a run without hypotheses."""
    claims, tested = comparisons.effects.no_harm, _tested(comparisons)
    content: list[Content] = []
    if claims:
        content.append(("table", _claims(claims)))
    if tested:
        content.append(("table", _power(tested)))
    return Section("no-harm", "No harm, and power", content) if content else None


def _claims(claims: Sequence[NoHarmClaim]) -> Table:
    return Table(
        "Claims of no harm.",
        ("Items", "Measure", "n", "claim", "change [90\u00a0%\u00a0interval]", "p", "p, Holm", "verdict"),
        [Block([_row(claim) for claim in claims])],
        "Tolerances were fixed beforehand: 5 points of accuracy, and 0.1 nats of the log-probability "
        "margin. Equivalence: the change lies within the tolerance on both sides. Non-inferiority: it is "
        "not worse than the negative tolerance. Holm's correction is over these claims alone. A claim that "
        "is not shown is no evidence of harm.",
    )


def _row(claim: NoHarmClaim) -> Row:
    test, binary = claim.test, claim.comparison.kind == "binary"
    form = points if binary else _nats
    limit = f"{100 * test.margin:g} points" if binary else f"{test.margin:g} nats"
    sign = "\u00b1" if claim.claim == "equivalence" else "\u2212"
    numbers = {"difference": test.difference, "low": test.low, "high": test.high, "p-holm": claim.p_holm}
    return Row(
        [
            subset_label(claim.comparison.subset),
            UNITS[claim.comparison.kind],
            f"{test.n:,}",
            f"{claim.claim}, {sign}{limit}",
            f"{form(test.difference)} {interval(test.low, test.high, form)}",
            p_value(claim.p),
            p_value(claim.p_holm),
            claim.verdict,
        ],
        data={
            "claim": claim.claim,
            "kind": claim.comparison.kind,
            "verdict": claim.verdict,
            **{name: repr(value) if known(value) else "" for name, value in numbers.items()},
        },
    )


def _tested(comparisons: Comparisons) -> list[ComparisonResult]:
    effects = comparisons.effects
    return [*effects.select(family="primary"), *effects.select(family="mata")]


def _power(rows: Sequence[ComparisonResult]) -> Table:
    return Table(
        "What each hypothesis could have detected.",
        ("Items", "Measure", "n", "change", f"smallest change detected with {100 * POWER:.0f}\u00a0% power"),
        [Block([_power_row(row) for row in rows])],
        "From the number of items and of changed answers (accuracy), or from the spread of the changes "
        "(margin); at the 5 % level, before Holm's correction. A smaller change may well exist where none "
        "was detected.",
    )


def _power_row(row: ComparisonResult) -> Row:
    binary = row.comparison.kind == "binary"
    form = points if binary else _nats
    smallest = "none"
    if known(row.detectable):
        smallest = f"{number(100 * row.detectable, 1)} points" if binary else f"{number(row.detectable)} nats"
    return Row(
        [
            subset_label(row.comparison.subset),
            UNITS[row.comparison.kind],
            f"{row.effect.n:,}",
            form(row.effect.difference),
            smallest,
        ],
        data={
            "power": row.comparison.kind,
            "detectable": repr(row.detectable) if known(row.detectable) else "",
        },
    )


def _nats(value: float) -> str:
    return number(value, 2, sign=True)
