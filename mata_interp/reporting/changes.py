"""The section on what MATA changed: forest plot, fixed and broken answers, margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..experiments.effects import BASELINE, MATA
from .comparisons import Comparisons, Group, LabelledEffect, subset_label, where
from .figures import forest, margins
from .figures.svg import responsive
from .parts import Block, Content, FigurePart, Row, Section, Table
from .wording import count, interval, known, listing, number, p_value, percent, points

COUNTS = (
    "n",
    "before, %",
    "after, %",
    "change, points [95\u00a0%\u00a0interval]",
    "fixed",
    "broken",
    "p",
    "p, Holm",
)

OTHER_SCORES = {
    "correct_normalised": "MATA, answers chosen by log-probability per token",
    "official": "MATA, the chosen option's text judged by the string match of MMAU and MMAR",
}


def changes_section(records: pd.DataFrame, comparisons: Comparisons) -> Section:
    """Everything that compares MATA with the baseline."""
    content: list[Content] = [("figure", _forest(comparisons)), ("table", _table(comparisons))]
    if scatter := _scatter(records, comparisons.subset):
        content.append(("figure", scatter))
    content.append(("folded", _margin_table(comparisons)))
    return Section("effect", "What MATA changed", content)


def _forest(comparisons: Comparisons) -> FigurePart:
    sections = [
        forest.Section(group.title, [_forest_row(named) for named in group.members])
        for group in comparisons.groups()
    ]
    return FigurePart(
        "forest",
        responsive(
            lambda width: forest.forest(sections, width), "forest", "Changes in accuracy with 95 % intervals"
        ),
        "Change in accuracy, with 95 % intervals.",
        "Diamond: the primary comparison, fixed before any number was seen. Filled circles: MATA elsewhere. "
        "Hollow grey circles: controls, which should change little if what helps is attention to this sound "
        f"in these layers. {_reading(comparisons)}",
    )


def _forest_row(named: LabelledEffect) -> forest.Row:
    e = named.effect
    difference, low, high = (float("nan") if e[k] is None else e[k] for k in ("difference", "low", "high"))
    n, fixed, broken = (_whole(e[key]) for key in ("n", "fixed", "broken"))
    return forest.Row(named.label, difference, low, high, n, fixed, broken, named.look)


def _reading(comparisons: Comparisons) -> str:
    primary, shams = comparisons.primary, comparisons.shams()
    if primary is None or not known(primary["low"]):
        return ""
    side = "lies above" if primary["low"] > 0 else "lies below" if primary["high"] < 0 else "includes"
    text = f"The primary interval {side} zero."
    if shams:
        good = sum(1 for e in shams if known(e["low"]) and e["low"] > 0)
        found = f"{good or 'none'} {'has' if good < 2 else 'have'} an interval above zero"
        text += f" Of the {count(len(shams), 'control')}, {found}."
    return text


def _table(comparisons: Comparisons) -> Table:
    groups = comparisons.groups()
    here = dict(after_condition=MATA, before_condition=BASELINE)
    for column, title in OTHER_SCORES.items():
        members = [
            LabelledEffect(subset_label(e["subset"]), e, "mata") for e in comparisons.find(column, **here)
        ]
        groups += [Group(title, members)] if members else []
    return Table(
        "Answers fixed and broken.",
        ("Comparison", *COUNTS),
        [Block([_row(named) for named in group.members], group.title) for group in groups],
        "Fixed: wrong before, right after; broken: the reverse. Answers are chosen by the options' summed "
        f"log-probability unless said otherwise. {_methods(groups)}",
    )


def _methods(groups: Sequence[Group]) -> str:
    """How intervals and p-values were made: for the first comparison, and for those where it differs."""
    members = [named for group in groups for named in group.members]
    by_method: dict[str, list[str]] = {}
    for named in members:
        method = f"{named.effect['interval_method']} interval, {named.effect['p_method']} test"
        by_method.setdefault(method, []).append(named.label)
    usual, *others = by_method.items()
    exceptions = "".join(
        f"; {method} for {listing(list(dict.fromkeys(labels)))}" for method, labels in others
    )
    return (
        f"Method: {usual[0]}{exceptions}; two-sided; not items but clips count as independent. Holm's "
        "correction is over the hypotheses on MATA, margins among them, not over controls. "
        f"{members[0].effect['note']}"
    ).strip()


def _row(named: LabelledEffect) -> Row:
    e = named.effect
    cells = [
        named.label,
        f"{_whole(e['n']):,}",
        number(100 * e["before"], 1) if known(e["before"]) else "—",
        number(100 * e["after"], 1) if known(e["after"]) else "—",
        f"{points(e['difference'])} {interval(e['low'], e['high'])}",
        str(_whole(e["fixed"])),
        str(_whole(e["broken"])),
        p_value(e["p"]),
        p_value(e["p_holm"]),
    ]
    return Row(cells, named.look)


def _margin_table(comparisons: Comparisons) -> Table:
    blocks = [
        Block([_margin_row(named) for named in group.members], group.title)
        for group in comparisons.groups("margin")
    ]
    return Table(
        "Changes of the mean margin.",
        ("Comparison", "n", "before", "after", "change, nats [95\u00a0%\u00a0interval]", "p", "p, Holm"),
        blocks,
        "Margin: log-probability of the right option minus that of the best wrong one, in nats. It also "
        "moves where no answer changes.",
    )


def _margin_row(named: LabelledEffect) -> Row:
    e = named.effect
    change = f"{_nats(e['difference'])} {interval(e['low'], e['high'], _nats)}"
    means = [number(e["before"]), number(e["after"])]
    return Row(
        [named.label, f"{_whole(e['n']):,}", *means, change, p_value(e["p"]), p_value(e["p_holm"])],
        named.look,
    )


def _nats(value: float) -> str:
    return number(value, 2, sign=True)


def _scatter(records: pd.DataFrame, subset: Mapping[str, Any]) -> FigurePart | None:
    """Margins of the primary comparison's items, item by item."""
    table = where(records, subset).pivot(index="item", columns="condition", values="margin")
    if not {BASELINE, MATA} <= set(table):
        return None
    table = table[[BASELINE, MATA]].dropna()
    before, after = (np.asarray(table[name], dtype=float) for name in (BASELINE, MATA))
    if not len(table):
        return None
    up = (after > before).mean()
    return FigurePart(
        "margins",
        responsive(
            lambda width: margins.margins(before, after, width),
            "margins",
            "Margin of each item before and after",
        ),
        "What the mean hides: every item of the primary comparison.",
        "One dot is one item. Above the diagonal MATA moved it towards the right answer; the answer itself "
        f"changes only where an axis is crossed. MATA raised the margin of {percent(float(up), 0)} of "
        f"{count(len(table), 'item')}.",
    )


def _whole(value: float | None) -> int:
    return int(value) if known(value) else 0  # type: ignore[arg-type]
