"""The sections of a plain run that compare its conditions with its baseline."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pandas as pd

from ..errors import MataError
from ..experiments import Run
from .comparisons import CALIBRATION, Comparisons
from .figures import forest
from .figures.svg import figure_part
from .flow import flow_figure
from .parts import Block, Content, FigurePart, Row, Section, Table
from .tasks import tasks_section
from .wording import NONE, interval, known, number, p_value, percent, points, printable

__all__ = ["RunPairs", "run_sections"]


@dataclass(frozen=True)
class RunPairs:
    """A baseline, and the conditions that answer in the same way and are compared with it."""

    baseline: str
    conditions: tuple[str, ...]

    @classmethod
    def of(cls, run: Run) -> RunPairs | None:
        """The baseline is the condition of that name, else the first without an edit; None without pairs."""
        conditions = run.conditions
        unedited = [name for name in conditions if conditions[name].inferred_role == "baseline"]
        baseline = "baseline" if "baseline" in unedited else next(iter(unedited), None)
        if baseline is None or not bool(run.records["answer"].notna().any()):
            return None
        decoding = conditions[baseline].decoding
        done = set(run.records["condition"])
        treated = [
            name
            for name in conditions
            if name != baseline and name in done and conditions[name].decoding == decoding
        ]
        return cls(baseline, tuple(treated)) if treated and baseline in done else None


def run_sections(run: Run, comparisons: Comparisons) -> list[Section]:
    """The comparisons, the flow of answers under the first edited condition, and its effect by task."""
    pairs = RunPairs.of(run)
    if pairs is None:
        return []
    try:
        table = run.compare(pairs.baseline, conditions=pairs.conditions)
        margins = run.compare(pairs.baseline, conditions=pairs.conditions, score="margin")
    except MataError as error:  # an unfinished run
        notice: Content = ("notice", printable(f"The conditions are not compared. {error}", 300))
        return [Section("effect", "Comparisons", [notice])]
    content: list[Content] = [("figure", _forest(table, comparisons)), ("table", _table(table, comparisons))]
    if bool((margins["n"] > 0).all()):
        content.append(("table", _margins(margins, comparisons)))
    edited = next(
        (name for name in pairs.conditions if run.conditions[name].interventions), pairs.conditions[0]
    )
    drawn = flow_figure(run.records, pairs.baseline, edited, {})
    if drawn is not None:
        content.append(("heading", f"Answers under {comparisons.label(edited)}"))
        content.append(("figure", drawn))
    sections = [Section("effect", f"Comparisons with {comparisons.label(pairs.baseline)}", content)]
    items = f"{comparisons.label(edited)}, all items"
    chosen_on = {clip for name in (pairs.baseline, edited) for clip in run.chosen_on.get(name, ())}
    tasks = tasks_section(run.records, pairs.baseline, edited, {}, items, chosen_on)
    return sections if tasks is None else [*sections, tasks]


def _rows(table: pd.DataFrame) -> list[Any]:
    """The rows of a table, each with its columns as attributes."""
    return [SimpleNamespace(**row) for row in table.to_dict("records")]  # type: ignore[arg-type]


def _forest(table: pd.DataFrame, comparisons: Comparisons) -> FigurePart:
    rows = [
        forest.Row(
            comparisons.label(row.condition), row.difference, row.low, row.high, row.n, row.fixed, row.broken,
            "mata" if comparisons.role(row.condition) == "mata" else "sham",
        )
        for row in _rows(table)
    ]  # fmt: skip
    sections = [forest.Section("All items", rows)]
    return figure_part(
        "forest",
        lambda width: forest.forest(sections, width),
        "Changes in accuracy with 95 % intervals",
        "Change in accuracy, with 95 % intervals.",
        "Filled circles: MATA. Hollow circles: other conditions. Intervals are of each comparison alone.",
    )


def _table(table: pd.DataFrame, comparisons: Comparisons) -> Table:
    rows = [
        Row(
            [
                comparisons.label(row.condition),
                f"{row.n:,}",
                number(100 * row.before, 1),
                number(100 * row.after, 1),
                f"{points(row.difference)} {interval(row.low, row.high)}",
                str(row.fixed),
                str(row.broken),
                str(row.churned),
                p_value(row.p),
                p_value(row.p_adjusted),
                number(row.dose_kl, 3) if known(row.dose_kl) else NONE,
            ],
            "" if comparisons.role(row.condition) == "mata" else "sham",
            {
                "compared": printable(row.condition),
                "difference": repr(float(row.difference)),
                "p-adjusted": repr(float(row.p_adjusted)),
            },
        )
        for row in _rows(table)
    ]
    head = ("Condition", "n", "before, %", "after, %", "change, points [95\u00a0%\u00a0interval]",
            "corrected", "broken", "churned", "p", "p, adjusted", "KL, nats")  # fmt: skip
    left_out = max((row.left_out for row in _rows(table)), default=0)
    missing = f" {left_out} items have no value and are left out." if left_out else ""
    chance = next((row.chance for row in _rows(table)), float("nan"))
    level = f" Chance: {percent(chance)}." if known(chance) else ""
    return Table(
        "Each condition against the baseline.",
        head,
        [Block(rows)],
        f"p is adjusted over all rows by max-T (sign flips of whole clips).{level}{missing} Nothing was "
        f"fixed before this run, so these comparisons explore. {CALIBRATION}",
    )


def _margins(table: pd.DataFrame, comparisons: Comparisons) -> Table:
    def nats(value: float) -> str:
        return number(value, 2, sign=True)

    rows = [
        Row(
            [
                comparisons.label(row.condition),
                f"{row.n:,}",
                number(row.before),
                number(row.after),
                f"{nats(row.difference)} {interval(row.low, row.high, nats)}",
                number(row.standardised),
                p_value(row.p),
                p_value(row.p_adjusted),
            ],
            "" if comparisons.role(row.condition) == "mata" else "sham",
            {"compared": printable(row.condition), "kind": "margin"},
        )
        for row in _rows(table)
    ]
    return Table(
        "Changes of the mean margin.",
        (
            "Condition",
            "n",
            "before",
            "after",
            "change, nats [95\u00a0%\u00a0interval]",
            "standardised",
            "p",
            "p, adjusted",
        ),
        [Block(rows)],
        "Margin: log-probability of the right option minus that of the best other option, in nats. "
        "Standardised: mean change over its standard deviation.",
    )
