"""The table is made of the record, and goes between its markers."""

from __future__ import annotations

import pytest

from .table import BEGIN, COLUMNS, END, placed, table

RECORD = {
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "families": {
        "one": {"masses": "yes", "sweep": "loop: it keeps a state", "hearing": "yes"},
        "two": {"masses": "yes", "sweep": "rows", "reload": "not verified here: timm is missing"},
    },
}


def test_what_was_not_recorded_is_a_dash():
    lines = table(RECORD).splitlines()
    assert (
        lines[0] == "Shown by `tests/families` on tiny random models with torch 2.13.0, transformers 5.23.0:"
    )
    head, _, one, two = (line.strip("|").split(" | ") for line in lines[2:6])
    assert len(head) == len(one) == len(two) == 1 + len(COLUMNS)
    rows = [dict(zip(["family", *COLUMNS], map(str.strip, row), strict=True)) for row in (one, two)]
    assert [row["sweep"] for row in rows] == ["loop [1]", "rows"]
    assert [row["reload"] for row in rows] == ["–", "not verified here [2]"]
    assert lines[-2:] == ["[1] loop: it keeps a state  ", "[2] not verified here: timm is missing"]


def test_between_its_markers():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = placed(text, RECORD)
    assert new.startswith(f"before\n{BEGIN}\nShown by")
    assert new.endswith(f"{END}\nafter\n")
    assert placed(new, RECORD) == new
    with pytest.raises(ValueError, match="no lines"):
        placed("nothing", RECORD)
