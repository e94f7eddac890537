"""A check report as text: a table, notes on every check that did not pass, and counts."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results import CheckResult

__all__ = ["count_verdicts", "render"]

SYMBOLS = {"not applicable": "--", "not comparable": "??"}
"""What stands for a verdict in the table, where it is not the verdict itself."""


def render(
    model: str, about: Mapping[str, str], results: Sequence[CheckResult], excluded: Sequence[str] = ()
) -> str:
    """The text of a report."""
    described = ", ".join(value if name != "class" else f"a {value}" for name, value in about.items())
    notes = [note for note in map(_note, results) if note]
    notes += [f"left out: {line}" for line in excluded]
    notes = [textwrap.fill(note, 100, subsequent_indent="  ", break_on_hyphens=False) for note in notes]
    return "\n\n".join([f"{model} ({described})", _table(results), *notes, count_verdicts(results)])


def count_verdicts(results: Sequence[CheckResult]) -> str:
    """How many checks have each verdict."""
    count = Counter(result.verdict for result in results)
    parts = [f"{count['pass']} of {len(results)} checks passed", f"{count['fail']} failed"]
    if count["error"]:
        parts.append(f"{count['error']} could not be measured")
    if count["not comparable"]:
        parts.append(f"{count['not comparable']} not comparable")
    return ", ".join([*parts, f"{count['not applicable']} not applicable"])


def _table(results: Sequence[CheckResult]) -> str:
    rows = [("", "check", "measured", "bound")]
    for result in results:
        bound = "" if result.bound is None else "exact" if result.bound == 0 else f"{result.bound:.3g}"
        measured = result.measured if result.difference is not None else "see below"
        first, *more = _wrapped(measured)
        rows.append((SYMBOLS.get(result.verdict, result.verdict), result.name, first, bound))
        rows += [("", "", f"  {part}", "") for part in more]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _note(result: CheckResult) -> str:
    """What is said below the table about a result; "" after a pass."""
    if result.verdict == "not applicable":
        return f"{result.name}: not applicable: {result.measured}"
    if result.verdict == "not comparable":
        return f"{result.name}: NOT COMPARABLE ({result.compared}). {result.remedy}"
    if result.verdict == "error":
        return f"{result.name}: {result.measured}. {result.remedy}"
    if result.verdict == "fail":
        return f"{result.name}: FAILED ({result.compared}). {result.remedy}"
    return ""


def _wrapped(measured: str) -> list[str]:
    """A measurement as lines of the table."""
    return textwrap.wrap(measured, 72, break_long_words=False, break_on_hyphens=False) or [""]
