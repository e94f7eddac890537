"""The section on the effect by task: a forest plot over the kinds of question, and how much they differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from ..statistics import Effect, stratified_effect
from .comparisons import where
from .figures import forest
from .figures.svg import figure_part
from .parts import Block, Row, Section, Table
from .wording import count, interval, known, number, p_value, percent, points, printable

__all__ = ["tasks_section"]

MOST_TASKS = 40


def tasks_section(
    records: pd.DataFrame,
    before: str,
    after: str,
    subset: Mapping[str, str],
    items: str,
    chosen_on: Collection[str] = (),
) -> Section | None:
    """The change between two conditions by kind of question; None where there is one kind, or too many.

    Args:
        records: records of the run.
        before, after: names of the two conditions.
        subset: column -> value of the items that are compared.
        items: these items in words.
        chosen_on: clips on which one of the conditions was chosen: with these there are no p-values.
    """
    paired = _paired(records, before, after, subset)
    kinds = sorted(set(paired["kind"]))
    if not 2 <= len(kinds) <= MOST_TASKS:
        return None
    result = stratified_effect(
        paired["before"].to_numpy(),
        paired["after"].to_numpy(),
        paired["kind"],
        clusters=paired["cluster"].tolist(),
        chosen_on=chosen_on,
    )
    effects = sorted(result.strata.items(), key=lambda pair: -pair[1].difference)
    rows = [forest.effect_row(printable(name, 32) or "no task", effect, "mata") for name, effect in effects]
    total = forest.Row(
        "all tasks", result.difference, result.low, result.high, len(paired),
        sum(effect.fixed or 0 for effect in result.strata.values()),
        sum(effect.broken or 0 for effect in result.strata.values()), "primary",
    )  # fmt: skip
    sections = [forest.Section("By task", rows), forest.Section("Combined", [total])]
    figure = figure_part(
        "tasks",
        lambda width: forest.forest(sections, width),
        "Change in accuracy by task",
        "Change in accuracy by task, with 95 % intervals.",
        f"{items[0].upper()}{items[1:]}, by kind of question. They describe: there is no "
        f"correction for their number. {_differences(result.q_p, result.i_squared, len(kinds))}",
    )
    return Section("tasks", "Effect by task", [("figure", figure), ("folded", _table(effects))])


def _paired(records: pd.DataFrame, before: str, after: str, subset: Mapping[str, str]) -> pd.DataFrame:
    """The items that were answered under both conditions, with both values of ``correct``."""
    part = where(records.dropna(subset=["answer"]), subset)
    sides = {
        name: part.loc[part["condition"] == name].set_index("item").sort_index() for name in (before, after)
    }
    items = sides[before].index.intersection(sides[after].index)
    untreated = sides[before].loc[items]
    return pd.DataFrame({
        "kind": untreated["kind"].fillna("").astype(str),
        "cluster": untreated["cluster"],
        "before": untreated["correct"].astype(float),
        "after": sides[after].loc[items, "correct"].astype(float),
    }).dropna()  # fmt: skip


def _differences(p: float, i_squared: float, tasks: int) -> str:
    """Whether the tasks differ by more than chance."""
    if not known(p):
        return ""
    test = f"Welch's test, p {p_value(p)}; I\u00b2 {percent(i_squared, 0)}"
    if p < 0.05:
        return f"The effect differs between the {count(tasks, 'task')} ({test})."
    return f"A difference of the effect between the {count(tasks, 'task')} is not detectable ({test})."


def _table(effects: Sequence[tuple[object, Effect]]) -> Table:
    rows = [
        Row(
            [
                printable(name, 48) or "no task",
                f"{effect.n:,}",
                number(100 * effect.before, 1),
                number(100 * effect.after, 1),
                f"{points(effect.difference)} {interval(effect.low, effect.high)}",
                str(effect.fixed or 0),
                str(effect.broken or 0),
                p_value(effect.p),
            ],
            data={"task": printable(name), "difference": repr(float(np.float64(effect.difference)))},
        )
        for name, effect in effects
    ]
    head = (
        "Task",
        "n",
        "before, %",
        "after, %",
        "change, points [95\u00a0%\u00a0interval]",
        "corrected",
        "broken",
        "p",
    )
    return Table("Numbers by task.", head, [Block(rows)], "p is not corrected.")
