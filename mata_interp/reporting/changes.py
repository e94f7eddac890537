"""The section on the effect of MATA: forest plot, corrected and broken answers, margins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from .comparisons import CALIBRATION, Comparisons, Group, LabelledEffect, effect_data, subset_label, where
from .figures import forest, margins
from .figures.svg import figure_part
from .flow import flow_figure
from .parts import Block, Content, FigurePart, Row, Section, Table
from .wording import count, interval, known, listing, number, p_value, percent, points

COUNTS = (
    "n",
    "chance, %",
    "before, %",
    "after, %",
    "change, points [95\u00a0%\u00a0interval]",
    "corrected",
    "broken",
    "p",
    "p, Holm",
)

OTHER_SCORES = {
    "correct_normalised": "MATA, answers chosen by log-probability per token",
    "official": "MATA, the answer judged by the string match of MMAU and MMAR",
}


def changes_section(records: pd.DataFrame, comparisons: Comparisons) -> Section:
    """Everything that compares MATA with the baseline."""
    content: list[Content] = [("figure", _forest(comparisons))]
    if comparisons.primary is not None:
        pair = comparisons.primary.comparison
        if drawn := flow_figure(records, pair.before, pair.after, pair.subset):
            content.append(("figure", drawn))
    content.append(("table", _table(comparisons)))
    if scatter := _scatter(records, comparisons):
        content.append(("figure", scatter))
    if comparisons.groups("margin"):  # generated answers have none
        content.append(("table", _margin_table(comparisons)))
    return Section("effect", "Effect of MATA", content)


def _forest(comparisons: Comparisons) -> FigurePart:
    sections = [
        forest.Section(
            group.title,
            [forest.effect_row(member.label, member.result.effect, member.look) for member in group.members],
        )
        for group in comparisons.groups()
    ]
    return figure_part(
        "forest",
        lambda width: forest.forest(sections, width),
        "Changes in accuracy with 95 % intervals",
        "Change in accuracy, with 95 % intervals.",
        "Diamond: the prespecified primary comparison. Filled circles: MATA on other items. Hollow grey "
        "circles: controls, which should change little if attention to this audio in these layers is what "
        f"helps. {_reading(comparisons)}",
    )


def _reading(comparisons: Comparisons) -> str:
    """What the intervals show."""
    if comparisons.primary is None or not known(comparisons.primary.effect.low):
        return ""
    primary, shams = comparisons.primary.effect, comparisons.shams()
    side = "lies above" if primary.low > 0 else "lies below" if primary.high < 0 else "includes"
    text = f"The primary interval {side} zero."
    if shams:
        above = sum(known(row.effect.low) and row.effect.low > 0 for row in shams)
        text += (
            f" Of the {count(len(shams), 'control')}, {above or 'none'} {'has' if above < 2 else 'have'} an "
        )
        text += "interval above zero."
    return text


def _table(comparisons: Comparisons) -> Table:
    groups = comparisons.groups()
    scored = "by the options' summed log-probability unless stated otherwise"
    if comparisons.generated:
        scored = "by generation, and scored by the option that each names; one that names none is wrong"
    for column, title in OTHER_SCORES.items():
        rows = comparisons.effects.select(before_role="baseline", after_role="mata", column=column)
        if rows:
            members = [LabelledEffect(subset_label(row.comparison.subset), row, "mata") for row in rows]
            groups.append(Group(title, members))
    return Table(
        "Corrected and broken answers.",
        ("Comparison", *COUNTS),
        [Block([_row(member) for member in group.members], group.title) for group in groups],
        "Corrected: wrong before, right after. Broken: right before, wrong after. Chance: mean of one over "
        f"the number of options. Answers are chosen {scored}. {_methods(groups)}",
    )


def _methods(groups: Sequence[Group]) -> str:
    """How intervals and p-values were made: for the first comparison, and for those where it differs."""
    members = [member for group in groups for member in group.members]
    by_method: dict[str, list[str]] = {}
    for member in members:
        effect = member.result.effect
        method = f"{effect.interval_method} interval, {effect.p_method} test"
        by_method.setdefault(method, []).append(member.label)
    usual, *exceptional = by_method.items()
    exceptions = "".join(
        f"; {method} for {listing(list(dict.fromkeys(labels)))}" for method, labels in exceptional
    )
    return (
        f"Method: {usual[0]}{exceptions}; two-sided; clips, not items, are the independent units. Holm's "
        "correction is over all MATA hypotheses, those on margins included; controls are not corrected. "
        f"{CALIBRATION} {members[0].result.effect.note}"
    ).strip()


def _row(member: LabelledEffect) -> Row:
    effect = member.result.effect
    cells = [
        member.label,
        f"{effect.n:,}",
        number(100 * member.result.chance, 1),
        number(100 * effect.before, 1),
        number(100 * effect.after, 1),
        f"{points(effect.difference)} {interval(effect.low, effect.high)}",
        str(effect.fixed or 0),
        str(effect.broken or 0),
        p_value(effect.p),
        p_value(member.result.p_holm),
    ]
    return Row(cells, member.look, effect_data(member.result))


def _margin_table(comparisons: Comparisons) -> Table:
    blocks = [
        Block([_margin_row(member) for member in group.members], group.title)
        for group in comparisons.groups("margin")
    ]
    return Table(
        "Changes of the mean margin.",
        ("Comparison", "n", "before", "after", "change, nats [95\u00a0%\u00a0interval]", "p", "p, Holm"),
        blocks,
        "Margin: log-probability of the right option minus that of the best other option, in nats. It can "
        "change where the answer does not.",
    )


def _margin_row(member: LabelledEffect) -> Row:
    effect = member.result.effect
    cells = [
        member.label,
        f"{effect.n:,}",
        number(effect.before),
        number(effect.after),
        f"{_nats(effect.difference)} {interval(effect.low, effect.high, _nats)}",
        p_value(effect.p),
        p_value(member.result.p_holm),
    ]
    return Row(cells, member.look, effect_data(member.result))


def _nats(value: float) -> str:
    return number(value, 2, sign=True)


def _scatter(records: pd.DataFrame, comparisons: Comparisons) -> FigurePart | None:
    """Margins of the primary comparison's items, item by item."""
    if comparisons.primary is None:
        return None
    names = [comparisons.primary.comparison.before, comparisons.primary.comparison.after]
    table: Any = where(records, comparisons.subset).pivot(index="item", columns="condition", values="margin")
    if not set(names) <= set(table):  # an unfinished run
        return None
    table = table[names].dropna()
    if table.empty:
        return None
    before, after = (table[name].astype(float) for name in names)
    raised = float((after > before).mean())
    return figure_part(
        "margins",
        lambda width: margins.margins(before, after, width),
        "Margin of each item before and after",
        "Margin of every item of the primary comparison.",
        "One dot is one item. Above the diagonal, MATA raised the margin; the answer changes only where a "
        f"dot crosses an axis. MATA raised the margin of {percent(raised, 0)} of "
        f"{count(len(table), 'item')}.",
    )
