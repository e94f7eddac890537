"""A plain reference for the official scores: item by item, with loops over lists of words."""

from __future__ import annotations

from typing import Any


def words(text: str) -> list[str]:
    """Longest runs of word characters, lower case: what ``\\b\\w+\\b`` finds."""
    result, run = [], ""
    for character in text.lower() + " ":
        if character.isalnum() or character == "_":
            run += character
        elif run:
            result.append(run)
            run = ""
    return result


def right(prediction: str, answer: str, choices: list[str]) -> bool:
    if not words(prediction):
        return False
    for word in words(answer):
        if word not in words(prediction):
            return False
    for choice in choices:
        if sorted(set(words(choice))) == sorted(set(words(answer))):
            continue
        for word in words(choice):
            if word not in words(answer) and word in words(prediction):
                return False
    return True


def official(records: list[dict[str, Any]], key: str, groups: list[str]) -> dict[str, Any]:
    """Counts as in the official scripts: [right, all] for each value, in order of appearance."""
    tables: dict[str, dict[str, list[int]]] = {group: {} for group in groups}
    total = [0, 0]
    for record in records:
        if key not in record:
            continue
        match = right(record[key], record["answer"], record["choices"])
        for counts in (total, *(tables[g].setdefault(record[g], [0, 0]) for g in groups)):
            counts[0] += match
            counts[1] += 1
    return {"total": total, **tables}
