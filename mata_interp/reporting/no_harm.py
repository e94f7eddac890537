"""The claims of no harm as a table, and what the items without a detectable change could have shown."""

from __future__ import annotations

from collections.abc import Sequence

from ..experiments.no_harm import NoHarmClaim
from .comparisons import subset_label
from .parts import Block, Content, Row, Table
from .wording import interval, known, number, p_value, points

UNITS = {"binary": "accuracy, points", "margin": "margin, nats"}


def no_harm_content(claims: Sequence[NoHarmClaim]) -> list[Content]:
    """One table of all claims; nothing where there are none."""
    if not claims:
        return []
    table = Table(
        "Claims of no harm.",
        ("Items", "Measure", "n", "claim", "change [90\u00a0%\u00a0interval]", "p", "p, Holm", "verdict"),
        [Block([_row(claim) for claim in claims])],
        "Margins were fixed beforehand: 5 points for accuracy, 0.1 nats for the margin between the right and "
        "the best other option. Equivalence: two one-sided tests that the change lies within the margin on "
        "both sides. Non-inferiority: one test that it is not below the negative margin. Holm's correction "
        "is over these claims alone. A claim that is not shown is no evidence of harm.",
    )
    return [("table", table)]


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


def _nats(value: float) -> str:
    return number(value, 2, sign=True)
