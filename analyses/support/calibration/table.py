"""The result of the calibration as text: what misses its goal first, then a table for each procedure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["markdown", "summary"]

FAMILIES = {
    "answers": "Answers before and after",
    "margins": "Changes of margins",
    "sweep": "Many configurations",
    "band": "Simultaneous bands",
    "rates": "Rates",
    "wilson": "One proportion",
    "strata": "Strata",
    "trend": "Trend over doses",
    "association": "Association of dose and gain",
    "power": "Power that is claimed",
    "study": "Whole studies: select, then test",
    "crossfit": "Cross-fitted studies",
}


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _goal(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return ""
    if row["low"] == 0:
        return f"at most {_percent(row['high'])}"
    return f"{_percent(row['low'])} to {_percent(row['high'])}"


def _line(row: Mapping[str, Any]) -> str:
    rate = f"{_percent(row['rate'])} \u00b1 {_percent(row['error'])}"
    cells = [row["cell"], row["procedure"], row["quantity"], rate, f"{row['replicates']:,}", _goal(row)]
    return f"| {' | '.join([*cells, row['verdict'], row['note']])} |"


INTERVALS = {
    "t interval (paired_effect)": "t (used)",
    "symmetric bootstrap-t (beside it in paired_effect)": "symmetric bootstrap-t (beside it)",
    "CR1 t": "CR1 t",
    "percentile": "percentile",
    "BCa": "BCa",
    "bootstrap-t": "bootstrap-t",
    "smoothed": "smoothed",
}


def _is_listed(row: Mapping[str, Any]) -> bool:
    """Whether a row stands in the table of its family: intervals of margins have a table of their own."""
    return row["kind"] != "margins" or row["quantity"] != "coverage" or row["verdict"] != ""


def _intervals(rows: Sequence[Mapping[str, Any]]) -> str:
    """Coverage of every interval of margins by cell, those that the package does not use among them."""
    covered = {
        (row["cell"], row["procedure"]): _percent(row["rate"])
        for row in rows
        if row["kind"] == "margins" and row["quantity"] == "coverage"
    }
    cells = list(dict.fromkeys(cell for cell, _ in covered))
    lines = [
        "Coverage of 95 % intervals, in %, from 10,000 data sets (bootstraps: at least 2,000 of them). t is "
        "CR2 with Satterthwaite's degrees of freedom, CR1 t has clips - 1 of them: they differ where clips "
        "are of unequal size.",
        "",
        f"| data | {' | '.join(INTERVALS.values())} |",
        f"|---|{'---|' * len(INTERVALS)}",
    ]
    for cell in cells:
        values = [covered.get((cell, name), "") for name in INTERVALS]
        lines.append(f"| {cell} | {' | '.join(values)} |")
    return "\n".join(lines)


HEAD = (
    "| data | procedure | quantity | % \u00b1 s.e. | replicates | goal, % | verdict | note |\n"
    "|---|---|---|---|---|---|---|---|"
)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Procedure -> verdict -> number of rows."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["verdict"]:
            mine = counts.setdefault(row["procedure"], {"met": 0, "conservative": 0, "missed": 0})
            mine[row["verdict"]] += 1
    return counts


def markdown(result: Mapping[str, Any]) -> str:
    """The whole result as Markdown.

    Args:
        result: what ``calibration.json`` holds.
    """
    rows = result["rows"]
    about = (
        f"Made by `python analyses/calibration.py` at commit {result['commit']}, seed {result['seed']}: "
        f"{len(result['cells'])} kinds of data, {len(rows)} rates. A rate stands with its Monte-Carlo "
        "standard error; a goal is missed if the rate's 99 % Monte-Carlo interval lies outside it. "
        '"conservative": an interval that covers more often than the goal.'
    )
    parts = ["# Calibration", about, "## By procedure"]
    lines = ["| procedure | met | conservative | missed |", "|---|---|---|---|"]
    for name, counts in summary(rows).items():
        lines.append(f"| {name} | {counts['met']} | {counts['conservative']} | {counts['missed']} |")
    parts.append("\n".join(lines))
    if missed := [row for row in rows if row["verdict"] == "missed"]:
        parts += ["## What misses its goal", "\n".join([HEAD, *map(_line, missed)])]
    parts += ["## Intervals of the mean change of a margin", _intervals(rows)]
    for kind, title in FAMILIES.items():
        if mine := [row for row in rows if row["kind"] == kind and _is_listed(row)]:
            parts += [f"## {title}", "\n".join([HEAD, *map(_line, mine)])]
    return "\n\n".join(parts) + "\n"
