"""Scores of a predictions file: the benchmark's own, and the option-aware one beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError, ItemError
from .matching import official_match, option_named

__all__ = ["RULES", "Rules", "join_answers", "score_predictions", "write_submission"]


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
    Items with a repeated choice are scored like any other.

    Args:
        records: the benchmark's own, each with its prediction.
        benchmark: ``"mmau"`` or ``"mmar"``.

    Returns:
        ``{"official": {...}, "option_aware": {...}}``, each with ``accuracy`` (a fraction; None where nothing
        was predicted), ``n``, ``correct`` and ``by`` (column -> value -> accuracy, n, correct). The official
        one also has ``key`` and ``no_prediction``; the option-aware one ``unparsed``, answers that do not
        name one option and are wrong, and ``unparsed_rate``.

    Raises:
        BenchmarkError: no such benchmark.
        ItemError: a record lacks its answer or choices, or its prediction is no text.
    """
    if benchmark not in RULES:
        raise BenchmarkError(f"No official score of {benchmark!r}: there are those of {', '.join(RULES)}.")
    rules = RULES[benchmark]
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise ItemError(f"record {number}", "record", f"{record!r} is not an object.")
    key = next((key for key in rules.keys if any(key in record for record in records)), rules.keys[0])
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
            "unparsed_rate": unparsed / len(rows) if rows else None,
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
    by_id = _by_id(predictions, "predictions")
    known = _by_id(answers, "answers")
    for name in by_id:
        if name not in known:
            raise ItemError(name, "id", "the answers have no such id.", "Do both belong to one benchmark?")
    return [{**by_id.get(name, {}), **record} for name, record in known.items()]


def write_submission(
    records: Sequence[Mapping[str, Any]], predictions: Mapping[str, str], benchmark: str, path: str | Path
) -> int:
    """Write what the benchmark's leaderboard takes: all its records, each with its prediction.

    Args:
        records: of the data file, e.g. MMAU's test set, whose answers are not released.
        predictions: id -> what the model said. A record without one is written without the key.
        path: of the file; ``.jsonl`` gives JSON lines.

    Returns:
        The number of records without a prediction.

    Raises:
        ItemError: a prediction's id is not among the records'.
    """
    if benchmark not in RULES:
        raise BenchmarkError(f"No submission format of {benchmark!r}: there are those of {', '.join(RULES)}.")
    key, known = RULES[benchmark].keys[0], _by_id(records, "records")
    for name in predictions:
        if name not in known:
            raise ItemError(name, "id", "the benchmark has no such id.")
    rows = [
        {**record, key: predictions[name]} if name in predictions else dict(record)
        for name, record in known.items()
    ]
    if Path(path).suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = json.dumps(rows, ensure_ascii=False, indent=1)
    Path(path).write_text(text, encoding="utf-8")
    return len(rows) - len(predictions)


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
    accuracy = sum(right) / len(right) if right else None
    return {"accuracy": accuracy, "n": len(right), "correct": sum(right)}


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


def _by_id(records: Sequence[Mapping[str, Any]], what: str) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for number, record in enumerate(records, start=1):
        name = str(record.get("id") or "") if isinstance(record, Mapping) else ""
        if not name:
            raise ItemError(f"record {number}", "id", f"there is none in the {what}.")
        if name in found:
            raise ItemError(name, "id", f"it comes twice in the {what}.")
        found[name] = record
    return found
