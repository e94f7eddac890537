"""The section on methods other than MATA: what each changes against the baseline, corrected over methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..experiments import Run
from ..experiments.comparing import compare_conditions
from ..experiments.planned_comparisons import primary_subset
from ..interventions import describe
from .comparisons import subset_label, where
from .parts import Block, Content, Row, Section, Table
from .wording import interval, known, number, p_value, percent, points, printable


def methods_section(run: Run) -> Section | None:
    """Accuracy under each method and its change, on the primary items; None where there are no methods.

    Args:
        run: Of conditions of which some apply other methods than MATA, and one is the baseline.
    """
    names = method_conditions(run)
    baseline = next((name for name, role in run.roles.items() if role == "baseline"), None)
    done = set(run.records["condition"])
    if baseline is None or baseline not in done or run.missing or not set(names) & done:
        return None
    subset = primary_subset(run.records)
    records: Any = where(run.records, subset)
    if records["answer"].isna().all():
        return None
    generated = bool(records["text"].notna().any())
    table = compare_conditions(records, baseline, conditions=names, correct="holm")
    margins = None if generated else compare_conditions(records, baseline, score="margin", conditions=names)
    alone = records.groupby("condition")["dose_left_alone"].mean().to_dict()
    content: list[Content] = [("table", _effects(table, margins, alone, subset_label(subset)))]
    content.append(("table", _formulas(run, names)))
    return Section("methods", "Other methods", content)


def method_conditions(run: Run) -> list[str]:
    """Conditions, with the item's own audio, that apply a method other than MATA and its shams."""
    return [
        name
        for name, condition in run.conditions.items()
        if condition.audio == "own" and condition.interventions and condition.inferred_role == "other"
    ]


def _effects(table: Any, margins: pd.DataFrame | None, alone: Mapping[str, float], items: str) -> Table:
    """One row for each method, in the order of the lower end of the interval."""
    by_name = {} if margins is None else margins.set_index("condition")["difference"].to_dict()
    rows = []
    for _, row in table.sort_values("low", ascending=False, kind="stable").iterrows():
        change = f"{points(row['difference'])} {interval(row['low'], row['high'])}"
        moved = by_name.get(row["condition"], float("nan"))
        cells = [
            printable(row["condition"], 40),
            f"{int(row['n']):,}",
            percent(row["after"]),
            change,
            f"{int(row['fixed'])} / {int(row['broken'])}",
            p_value(row["p_adjusted"]),
            number(moved, 2, sign=True) if known(moved) else "",
            number(row["dose_kl"], 3) if known(row["dose_kl"]) else "",
            percent(alone[row["condition"]], 0) if known(alone.get(row["condition"])) else "",
        ]
        data = {
            "method": printable(row["condition"]),
            "difference": repr(float(row["difference"])),
            "low": repr(float(row["low"])),
            "p-holm": repr(float(row["p_adjusted"])),
        }
        rows.append(Row(cells, "", data))
    head = (
        "Method",
        "items",
        "accuracy",
        "change, points",
        "corrected / broken",
        "p, Holm",
        "margin",
        "KL",
        "left alone",
    )
    return Table(
        f"Methods against the baseline, {items}.",
        head,
        [Block(rows)],
        "In the order of the lower end of the 95\u00a0% interval. p: Holm-adjusted over these methods. "
        "Margin: mean change, nats. KL: mean divergence of the edited attention rows from the unedited ones, "
        "nats; empty where a method does not edit attention. Left alone: attention rows that a method could "
        "not edit, of those that it selects heads and layers for.",
    )


def _formulas(run: Run, names: list[str]) -> Table:
    rows = []
    for name in names:
        for part in run.conditions[name].interventions:
            cells = [
                printable(name, 40),
                printable(describe(part), 400),
                printable(getattr(part, "source", ""), 200),
            ]
            rows.append(Row(cells, "", {"method": printable(name)}))
    return Table(
        "What each method does.", ("Method", "Formula and settings", "Source"), [Block(rows)], words=True
    )
