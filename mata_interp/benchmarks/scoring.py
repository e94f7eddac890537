"""Scores of a predictions file: the benchmark's own, and the option-aware one beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BenchmarkError, ItemError
from .answer_matching import official_match, option_named

__all__ = ["RULES", "Rules", "by_id", "join_answers", "score_predictions"]


@dataclass(frozen=True)
class Rules:
    """How a benchmark's official script scores.

    Attributes:
        keys: what a prediction may be called; the first that any record has is taken for all.
        groups: columns that the script prints accuracies by.
        script: where it is.
    """

    keys: tuple[str, ...]
    groups: tuple[str, ...]
    script: str


RULES = {
    # MMAU's script reads model_output, its README says model_prediction; MMAR's were the other way round
    "mmau": Rules(
        ("model_output", "model_prediction"),
        ("task", "difficulty", "sub-category"),
        "github.com/Sakshi113/MMAU evaluation.py",
    ),
    "mmar": Rules(
        ("answer_prediction", "model_prediction"),
        ("modality", "category", "sub-category"),
        "github.com/ddlBoJack/MMAR code/evaluation.py",
    ),
}


def score_predictions(records: Sequence[Mapping[str, Any]], benchmark: str) -> dict[str, Any]:
    """Both scores of records with predictions.

    A record without the prediction's key leaves the denominator, as in the scripts, and is counted in
    ``no_prediction``; an empty prediction stays in and is wrong. Averages are over items, not over groups.
    Items with a repeated choice are scored like any other. Ids are not needed, as the scripts do not read
    them; but where there are any, each record has one of its own, so that nothing counts twice.

    Args:
        records: the benchmark's own, each with its prediction.
        benchmark: ``"mmau"`` or ``"mmar"``.

    Returns:
        ``{"official": {...}, "option_aware": {...}}``, each with ``accuracy`` (a fraction), ``n``,
        ``correct`` and ``by`` (column -> value -> accuracy, n, correct). The official one also has ``key``
        and ``no_prediction``; the option-aware one ``unparsed``, answers that do not name one option and are
        wrong, and ``unparsed_rate``.

    Raises:
        BenchmarkError: no such benchmark; no record has a prediction.
        ItemError: a record lacks its answer or choices, its prediction is no text, or an id is missing or
            comes twice.
    """
    if benchmark not in RULES:
        raise BenchmarkError(f"No official score of {benchmark!r}: there are those of {', '.join(RULES)}.")
    rules = RULES[benchmark]
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise ItemError(f"record {number}", "record", f"{record!r} is not an object.")
    if any("id" in record for record in records):
        by_id(records, "predictions")
    key = next((key for key in rules.keys if any(key in record for record in records)), None)
    if key is None:
        there = ", ".join(sorted({str(column) for record in records for column in record}))
        raise BenchmarkError(
            f"No record has a prediction: {benchmark}'s is called {' or '.join(rules.keys)}, and the records "
            f"have {there}."
        )
    rows = [_judged(record, n, key) for n, record in enumerate(records, start=1) if key in record]
    unparsed = sum(row["option"] is None for row in rows)
    return {
        "official": {
            **_accuracy([row["official"] for row in rows]),
            "key": key,
            "no_prediction": len(records) - len(rows),
            "by": _by(rows, rules.groups, "official"),
        },
        "option_aware": {
            **_accuracy([row["right"] for row in rows]),
            "unparsed": unparsed,
            "unparsed_rate": unparsed / len(rows),
            "by": _by(rows, rules.groups, "right"),
        },
    }


def join_answers(
    predictions: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The answers' records, each with what the prediction of the same ``id`` adds to it.

    Records that nothing was predicted for stay as they are: without the key, to be counted.

    Raises:
        ItemError: an id is missing, comes twice, or is not among the answers'.
    """
    said = by_id(predictions, "predictions")
    known = by_id(answers, "answers")
    for name in said:
        if name not in known:
            raise ItemError(name, "id", "the answers have no such id.", "Do both belong to one benchmark?")
    return [{**said.get(name, {}), **record} for name, record in known.items()]


def _judged(record: Mapping[str, Any], number: int, key: str) -> dict[str, Any]:
    """The record and, beside its columns, whether it is right by either score."""
    name = str(record.get("id") or f"record {number}")
    said, answer, choices = record[key], record.get("answer"), record.get("choices")
    if not isinstance(said, str):
        raise ItemError(name, key, f"{said!r} is no text.", "Leave the key out where nothing was predicted.")
    if not isinstance(answer, str) or not answer.strip():
        raise ItemError(name, "answer", f"{answer!r} is no answer.", "Give the file that has it (--answers).")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise ItemError(name, "choices", f"{choices!r} is not a list of texts.")
    option = option_named(said, choices)
    right = option is not None and choices[option].strip() == answer.strip()
    return {
        "record": record,
        "official": official_match(said, answer, choices),
        "option": option,
        "right": right,
    }


def _accuracy(right: Sequence[bool]) -> dict[str, Any]:
    return {"accuracy": sum(right) / len(right), "n": len(right), "correct": sum(right)}


def _by(rows: Sequence[Mapping[str, Any]], groups: Sequence[str], column: str) -> dict[str, Any]:
    """Accuracies by each of ``groups``; a record without that column is in none of its values."""
    whole: dict[str, Any] = {}
    for group in groups:
        parts: dict[str, list[bool]] = {}
        for row in rows:
            if (value := row["record"].get(group)) is not None:
                name = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                parts.setdefault(name, []).append(row[column])
        whole[group] = {name: _accuracy(right) for name, right in parts.items()}
    return whole


def by_id(records: Sequence[Mapping[str, Any]], what: str) -> dict[str, Mapping[str, Any]]:
    """The records by their ids; ItemError where one is missing or comes twice in ``what``."""
    found: dict[str, Mapping[str, Any]] = {}
    for number, record in enumerate(records, start=1):
        name = str(record.get("id") or "") if isinstance(record, Mapping) else ""
        if not name:
            raise ItemError(f"record {number}", "id", f"there is none in the {what}.")
        if name in found:
            raise ItemError(name, "id", f"it comes twice in the {what}.")
        found[name] = record
    return found
