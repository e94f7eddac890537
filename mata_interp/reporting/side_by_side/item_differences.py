"""The section on single items: what each run made of those that all runs share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from ...errors import RunError
from ...experiments.item_recordings import RECORDINGS, load_recordings
from ..parts import Block, Content, JsonPart, Row, Section, Table
from ..wording import count, printable
from .joining import shared_items
from .sides import Side, Slot

__all__ = ["items_section", "state_of"]

MOST = 5000  # items in the table
TEXT = 300  # characters of a question
STATES = ("corrected", "broken", "right both times", "wrong both times", "right", "wrong")

SKELETON = Markup(
    '<div class="differences" id="item-differences"><noscript><p class="notice">The table of items needs '
    "JavaScript.</p></noscript>"
    '<div class="filters" role="search" aria-label="Filter items"></div>'
    '<p class="shown" role="status"></p>'
    '<div class="scroll" tabindex="0" role="region" aria-label="Items"><table class="words"></table></div>'
    '<p class="pages"><button type="button" class="button" data-step="-1">Previous</button> '
    '<button type="button" class="button" data-step="1">Next</button></p></div>'
)


def state_of(before: float | None, after: float | None) -> str:
    """What became of an answer: ``corrected``, ``broken``, ``right both times``, ``wrong both times``.

    Args:
        before: 1 for a right answer without the intervention, 0 for a wrong one; None where a run has a
            single condition: then ``right`` or ``wrong``.
        after: The same with the intervention; None: there is no answer.
    """
    if after is None:
        return ""
    if before is None:
        return "right" if after else "wrong"
    if bool(before) == bool(after):
        return "right both times" if after else "wrong both times"
    return "corrected" if after else "broken"


def items_section(sides: Sequence[Side], common: Sequence[Slot]) -> Section | None:
    """Items that all runs answered, by what became of them in each; None where there are none."""
    before, after = _conditions(common)
    if after is None:
        return None
    rows = _rows(sides, before, after)
    if not rows:
        return None
    content: list[Content] = [("text", _intro(sides, before, after, len(rows)))]
    for n, other in enumerate(sides[1:], 1):
        content.append(("table", _cross_table(sides[0], other, rows, n)))
    listed = sorted(rows, key=lambda row: len(set(row["states"])) == 1)[:MOST]
    if len(listed) < len(rows):
        content.append(("text", f"The list has {MOST:,} of {len(rows):,} items, those that differ first."))
    letters = [{"letter": side.letter, "label": printable(side.label, 60)} for side in sides]
    content.append(("html", SKELETON))
    content.append(("json", JsonPart("item-differences-data", {"runs": letters, "items": listed})))
    return Section(
        "items", "Items that differ", content, style=_file("item_differences.css"),
        script=_file("item_differences.js"),
    )  # fmt: skip


def _conditions(common: Sequence[Slot]) -> tuple[Slot | None, Slot | None]:
    """The corresponding conditions before and after; a single one counts as after."""
    kinds = {slot.kind: slot for slot in common if slot.kind != "other"}
    if "main" in kinds:
        return kinds.get("baseline"), kinds["main"]
    return None, kinds.get("baseline")


def _rows(sides: Sequence[Side], before: Slot | None, after: Slot) -> list[dict[str, Any]]:
    tables = [(_answers(side, before), _answers(side, after) or {}) for side in sides]
    questions = _questions(sides)
    rows = []
    for id in shared_items(sides):
        cells = [(None if first is None else first.get(id), second.get(id)) for first, second in tables]
        if any(second is None or (table[0] is not None and first is None)
               for (first, second), table in zip(cells, tables, strict=True)):  # fmt: skip
            continue
        about = sides[0].items.loc[id]
        rows.append({
            "id": printable(id, 120),
            "task": printable(about["kind"] or about["domain"] or "", 60),
            "question": printable(questions.get(id, ""), TEXT),
            "answer": printable(about["answer"], 120),
            "predicted": [
                [printable(one[1], 120) for one in pair if one is not None] for pair in cells
            ],
            "states": [
                state_of(None if first is None else first[0], None if second is None else second[0])
                for first, second in cells
            ],
        })  # fmt: skip
    return rows


def _answers(side: Side, slot: Slot | None) -> dict[str, tuple[float, str]] | None:
    """Item id -> whether the answer is right, and the answer; None where the run lacks the condition."""
    if slot is None or side.letter not in slot.names:
        return None
    part = side.scored.loc[side.scored["condition"] == slot.names[side.letter]]
    columns = zip(part["item"], part["correct"], part["predicted"], strict=True)
    return {item: (float(right), "no option" if text is None else str(text)) for item, right, text in columns}


def _questions(sides: Sequence[Side]) -> Mapping[str, str]:
    """The questions of items, from the recordings of a run that has them."""
    for side in sides:
        path = None if side.run.path is None else side.run.path / RECORDINGS
        if path is not None and path.exists():
            try:
                return {id: one.question for id, one in load_recordings(path).items.items()}
            except RunError:
                continue
    return {}


def _intro(sides: Sequence[Side], before: Slot | None, after: Slot, n: int) -> str:
    compared = f"under {after.title}" if before is None else f"{before.title} and under {after.title}"
    runs = "both runs" if len(sides) == 2 else f"all {len(sides)} runs"
    return (
        f"{count(n, 'item')} with the same words and sound, answered in {runs} {compared}. "
        "Corrected: wrong before, right after. Broken: right before, wrong after."
    )


def _cross_table(first: Side, other: Side, rows: Sequence[Mapping[str, Any]], place: int) -> Table:
    """How many items have each pair of states."""
    pairs = Counter((row["states"][0], row["states"][place]) for row in rows)
    names = [[state for state in STATES if any(pair[part] == state for pair in pairs)] for part in (0, 1)]
    table = [
        Row(
            [f"{first.letter}: {state}", *(f"{pairs[state, there]:,}" for there in names[1]),
             f"{sum(pairs[state, there] for there in names[1]):,}"],
            "",
            {"state": state, **{there.replace(" ", "-"): str(pairs[state, there]) for there in names[1]}},
        )
        for state in names[0]
    ]  # fmt: skip
    agree = sum(number for pair, number in pairs.items() if pair[0] == pair[1])
    return Table(
        f"What became of the same items in {first.letter} and {other.letter}.",
        ("", *(f"{other.letter}: {state}" for state in names[1]), "all"),
        [Block(table)],
        f"{agree:,} of {len(rows):,} items have the same fate in both runs.",
    )


def _file(name: str) -> str:
    return (resources.files("mata_interp.reporting.side_by_side") / name).read_text("utf-8")
