"""The table is made of the record, and goes between its markers."""

from __future__ import annotations

import pytest

from .merging import MARK, merged
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


SECOND = {
    "versions": {"torch": "2.9.1", "timm": "1.0.31"},
    "families": {
        "one": {"masses": "yes", "sweep": "loop", "processor": "yes", "hearing": "failing"},
        "two": {"reload": "yes", "masses": "not verified here: it has no wings"},
        "three": {"masses": "yes"},
    },
}


def test_open_cells_are_filled_from_the_second_environment():
    record = merged(RECORD, SECOND)
    assert record["families"] == {
        "one": RECORD["families"]["one"] | {"processor": "yes", "hearing": "failing"},
        "two": RECORD["families"]["two"] | {"reload": "yes"},
        "three": {"masses": "yes"},
    }
    cells = {"one": ["processor", "hearing"], "two": ["reload"], "three": ["masses"]}
    assert record["second"] == {"versions": SECOND["versions"], "cells": cells}
    lines = table(record).splitlines()
    assert lines[0].endswith(f"transformers 5.23.0; {MARK} with torch 2.9.1, timm 1.0.31:")
    rows = {line.strip("|").split(" | ")[0].strip(): line for line in lines[4:] if line.startswith("|")}
    assert rows["one"].count(MARK) == 2
    assert f"| failing {MARK} |" in rows["one"]
    assert f"| yes {MARK} |" in rows["two"]


def test_a_yes_with_a_limit_is_open_and_a_disagreement_is_an_error():
    limited = {"versions": {}, "families": {"one": {"processor": "yes: without pictures"}}}
    whole = {"versions": {}, "families": {"one": {"processor": "yes"}}}
    assert merged(limited, whole)["families"] == whole["families"]
    assert merged(whole, limited)["families"] == whole["families"]
    assert merged(whole, limited)["second"]["cells"] == {}
    rows = {"versions": {}, "families": {"one": {"sweep": "rows"}}}
    with pytest.raises(ValueError, match="one, sweep: 'rows' here and 'loop: it keeps a state' there"):
        merged(rows, {"versions": {}, "families": {"one": {"sweep": "loop: it keeps a state"}}})
