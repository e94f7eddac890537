"""Scores of predictions: the benchmark's official score, and an option-aware one beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BenchmarkError, ItemError
from .answer_matching import official_match, option_named
from .values import plain_value, quote, text_of

__all__ = ["RULES", "Rules", "index_by_id", "join_answers", "score_predictions"]


@dataclass(frozen=True)
class Rules:
    """How a benchmark's official script scores.

    Attributes:
        keys: keys that a prediction may have; the first one that any record has is used for all records.
        groups: columns that the script reports accuracies by.
        script: repository and file of the script.
    """

    keys: tuple[str, ...]
    groups: tuple[str, ...]
    script: str


RULES = {
    # MMAU's script reads model_output and its README names model_prediction; the other way round for MMAR
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
    """The official and the option-aware score of predictions.

    A record without a prediction's key is left out of the denominator, as in the official scripts, and
    counted in ``no_prediction``; an empty prediction counts as wrong. Averages are over items, not over
    groups. Items with a repeated choice are scored like any other. Ids are optional, since the scripts do not
    read them; if any record has an id, all must have different ones, so that none counts twice.

    Args:
        records: records of the benchmark, each with its prediction.
        benchmark: ``"mmau"`` or ``"mmar"``.

    Returns:
        ``{"official": {...}, "option_aware": {...}}``, each with ``accuracy`` (a fraction), ``n``,
        ``correct`` and ``by`` (column -> value -> accuracy, n, correct). The official one also has ``key``
        and ``no_prediction``; the option-aware one ``unparsed``, the number of answers that do not name
        exactly one option and count as wrong, and ``unparsed_rate``.

    Raises:
        BenchmarkError: there is no official score of this benchmark, or no record has a prediction.
        ItemError: a record has no answer or choices, its prediction is not a text, or an id is missing or
            repeated.

    Examples:
        >>> record = {"id": "q0", "choices": ["a dog", "a bell"], "answer": "a bell"}
        >>> scores = score_predictions([{**record, "model_output": "(B) a bell"}], "mmau")
        >>> scores["official"]["accuracy"], scores["option_aware"]["accuracy"]
        (1.0, 1.0)
    """
    if benchmark not in RULES:
        raise BenchmarkError(f"No official score of {quote(benchmark)}: choose one of {', '.join(RULES)}.")
    rules = RULES[benchmark]
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise ItemError(f"record {number}", "record", f"{quote(record)} is not an object.")
    if any("id" in record for record in records):
        index_by_id(records, "predictions")
    key = next((key for key in rules.keys if any(key in record for record in records)), None)
    if key is None:
        columns = quote(sorted({str(column) for record in records for column in record}))
        raise BenchmarkError(
            f"No record has a prediction: for {benchmark} its key is {' or '.join(rules.keys)}, and the "
            f"records have {columns}."
        )
    rows = [_score_record(record, n, key) for n, record in enumerate(records, start=1) if key in record]
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
    """Join predictions and answers by ``id``.

    Args:
        predictions: records with ids and predictions.
        answers: records of the benchmark, with ids and answers. Their values override those of predictions.

    Returns:
        The records of ``answers``, each with the further keys of the prediction of the same id. Records
        without a prediction are kept without its key, so that `score_predictions` counts them.

    Raises:
        ItemError: an id is missing, repeated, or not among the answers.
    """
    predicted = index_by_id(predictions, "predictions")
    by_id = index_by_id(answers, "answers")
    for name in predicted:
        if name not in by_id:
            remedy = "Check that both files belong to one benchmark."
            raise ItemError(name, "id", "the answers have no such id.", remedy)
    return [{**predicted.get(name, {}), **record} for name, record in by_id.items()]


def _score_record(record: Mapping[str, Any], number: int, key: str) -> dict[str, Any]:
    """The record, the option that its prediction names, and whether it is right by either score."""
    name = text_of(record.get("id")) or f"record {number}"
    prediction, answer, choices = record[key], record.get("answer"), plain_value(record.get("choices"))
    if not isinstance(prediction, str):
        remedy = "Leave the key out of records without a prediction."
        raise ItemError(name, key, f"{quote(prediction)} is not a text.", remedy)
    if not isinstance(answer, str) or not answer.strip():
        remedy = "Give the file that has the answers (--answers)."
        raise ItemError(name, "answer", f"{quote(answer)} is not an answer.", remedy)
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise ItemError(name, "choices", f"{quote(choices)} is not a list of texts.")
    option = option_named(prediction, choices)
    right = option is not None and choices[option].strip() == answer.strip()
    return {
        "record": record,
        "official": official_match(prediction, answer, choices),
        "option": option,
        "right": right,
    }


def _accuracy(right: Sequence[bool]) -> dict[str, Any]:
    return {"accuracy": sum(right) / len(right), "n": len(right), "correct": sum(right)}


def _by(rows: Sequence[Mapping[str, Any]], groups: Sequence[str], column: str) -> dict[str, Any]:
    """Accuracies by the values of each column of ``groups``; a missing value is no group."""
    tables: dict[str, Any] = {}
    for group in groups:
        parts: dict[str, list[bool]] = {}
        for row in rows:
            value = plain_value(row["record"].get(group))
            if value is not None:
                name = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                parts.setdefault(name, []).append(row[column])
        tables[group] = {name: _accuracy(right) for name, right in parts.items()}
    return tables


def index_by_id(records: Sequence[Mapping[str, Any]], source: str) -> dict[str, Mapping[str, Any]]:
    """The records by their ids.

    Args:
        records: records, each with an id.
        source: name of the records in error messages.

    Raises:
        ItemError: an id is missing or repeated.
    """
    index: dict[str, Mapping[str, Any]] = {}
    for number, record in enumerate(records, start=1):
        name = text_of(record.get("id")) if isinstance(record, Mapping) else ""
        if not name:
            raise ItemError(f"record {number}", "id", f"there is none in the {source}.")
        if name in index:
            raise ItemError(name, "id", f"it is repeated in the {source}.")
        index[name] = record
    return index
