"""One record of what two environments have shown."""

from __future__ import annotations

__all__ = ["MARK", "OPEN", "merged"]

MARK = "†"
"""Beside a cell that the second environment filled."""
OPEN = "not verified here"


def merged(first: dict, second: dict) -> dict:
    """The first record, its open cells filled from the second.

    A cell is open where nothing is recorded, where the record says "not verified here", or where it limits a
    "yes" that the second record gives without limits. Whatever fails in the second is failing.

    Args:
        first: ``versions`` of packages, and ``families``: family -> column -> result.
        second: the same of another environment.

    Returns:
        a record with ``second``: its versions, and its cells: family -> columns.

    Raises:
        ValueError: the environments disagree on a cell.
    """
    families, cells = {}, {}
    for family in sorted({*first["families"], *second["families"]}):
        results = dict(first["families"].get(family, {}))
        for column, result in second["families"].get(family, {}).items():
            if _fills(results.get(column, OPEN), result):
                results[column] = result
                cells.setdefault(family, []).append(column)
            elif not _agree(results[column], result):
                raise ValueError(f"{family}, {column}: {results[column]!r} here and {result!r} there.")
        families[family] = results
    second_part = {"versions": second["versions"], "cells": cells}
    return {"versions": first["versions"], "families": families, "second": second_part}


def _fills(first: str, second: str) -> bool:
    if second.startswith(OPEN) or first == "failing":
        return False
    return first.startswith(OPEN) or second == "failing" or (second == "yes" and first.startswith("yes: "))


def _agree(first: str, second: str) -> bool:
    return second.startswith(OPEN) or first == "failing" or first.split(": ")[0] == second.split(": ")[0]
