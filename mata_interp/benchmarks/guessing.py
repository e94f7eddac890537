"""A guess at which columns of an unknown file hold which fields of an item."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError
from .places import AUDIO_SUFFIXES
from .records import COLUMNS, find_column
from .values import is_missing, plain_value, quote, text_of

__all__ = ["columns_of", "guess_fields", "missing_fields", "unknown_columns", "write_fields"]

NEEDED = ("audio", "question", "choices")
_NAMES = {
    "audio": "audio file path filename filepath wav sound clip recording audio_file audio_filename "
    "audio_name audio_filepath file_name file_path wav_path audio_url",
    "question": "question prompt query instruction question_text q",
    "choices": "choices options candidates answer_choices answer_options multi_choice",
    "answer": "answer correct correct_answer correct_option correct_choice right right_answer answer_gt gt "
    "ground_truth label target solution gold answer_key key",
    "id": "id uniq_id question_id item_id qid uid index idx",
    "caption": "caption transcript transcription description",
}
_OPTION = re.compile(r"(?:options?|choices?|opt|answers?|candidates?)?_?([a-h]|[1-8])")
_LETTER = re.compile(r"\(?[A-Ha-h][).]?")
_ENOUGH = 0.8  # of the values that a guess must fit


def columns_of(records: Sequence[Any]) -> list[str]:
    """Names of all columns, in the order in which they appear."""
    names = dict.fromkeys(
        name for record in records if isinstance(record, Mapping) for name in record if isinstance(name, str)
    )
    return list(names)


def missing_fields(records: Sequence[Any]) -> list[str]:
    """Fields that every item needs and for which no record has a column of a known name."""
    every = dict.fromkeys(columns_of(records))
    return [field for field in NEEDED if find_column(every, field) is None]


def guess_fields(records: Sequence[Any]) -> dict[str, Any]:
    """Field of `Item` -> column, or form of a field mapping, by the names of columns and by their values.

    Options may be in one column or in one each (``option_a`` to ``option_d``, ``A`` to ``D``); answers may be
    texts or letters. Fields for which nothing fits are left out.

    Examples:
        >>> row = {"file": "a.wav", "prompt": "Who?", "A": "a dog", "B": "a cat", "correct": "B"}
        >>> guess_fields([row])
        {'audio': 'file', 'question': 'prompt', 'choices': ['A', 'B'], 'answer': {'option': 'correct'}}
    """
    rows = [record for record in records if isinstance(record, Mapping)]
    columns = columns_of(rows)
    known = dict.fromkeys(columns)
    guess: dict[str, Any] = {}
    options = _option_columns(columns)
    for field, names in _NAMES.items():
        column = find_column(known, field) or _named(columns, names.split(), {*guess.values(), *options})
        if column is not None and column not in options:
            guess[field] = column
    if "audio" not in guess and (column := _audio_by_values(rows, columns)):
        guess["audio"] = column
    if "choices" not in guess and len(options) > 1:
        guess["choices"] = options
    if "answer" in guess and _letters(rows, guess["answer"]):
        guess["answer"] = {"option": guess["answer"]}
    for field in COLUMNS:
        if field not in guess and (column := find_column(known, field)):
            guess[field] = column
    return {field: guess[field] for field in COLUMNS if field in guess}


def unknown_columns(records: Sequence[Any], file: Path, missing: Sequence[str]) -> str:
    """What to tell a user whose file has columns of unknown names: those seen, a guess, and what to do."""
    columns, guess = quote(columns_of(records)), guess_fields(records)
    problem = f"{str(file)!r} has the columns {columns}: none is known to hold {' or '.join(missing)}."
    if open_ones := [field for field in missing if field not in guess]:
        return (
            f"{problem} No guess fits {' or '.join(open_ones)}: name the columns with fields=, such as "
            '{"audio": "file", "question": "prompt", "choices": ["option_a", "option_b"], "answer": "right"}.'
        )
    text = json.dumps(guess, ensure_ascii=False)
    return (
        f"{problem} A guess: {text}. If it is right, `mata-interp benchmark inspect {file} --write-fields "
        "FIELDS.json` writes it to a file, and fields=FIELDS.json uses it."
    )


def write_fields(fields: Mapping[str, Any], path: Path) -> None:
    """Write a field mapping as JSON, for ``fields=`` and ``--fields``.

    Raises:
        BenchmarkError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"fields": fields}, ensure_ascii=False, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise BenchmarkError(f"{str(path)!r} cannot be written: {error}") from error


# ---------------------------------------------------------------------------------------------------- guesses
def _plain_name(column: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", column.strip().lower()).strip("_")


def _named(columns: Sequence[str], names: Sequence[str], taken: set[Any]) -> str | None:
    """The first column with one of the names, of those that are not taken."""
    by_name = {_plain_name(column): column for column in reversed(columns) if column not in taken}
    return next((by_name[name] for name in names if name in by_name), None)


def _option_columns(columns: Sequence[str]) -> list[str]:
    """The columns of one option each, in order: ``A``, ``B``, ... or ``option_1``, ``option_2``, ..."""
    groups_by_name: dict[str, dict[str, str]] = {}
    for column in columns:
        name = _plain_name(column)
        if match := _OPTION.fullmatch(name):
            groups_by_name.setdefault(name[: match.start(1)], {})[match[1]] = column
    groups = [
        dict(sorted(group.items())) for group in groups_by_name.values() if "a" in group or "1" in group
    ]
    best = max(groups, key=len, default={})
    return list(best.values()) if len(best) > 1 else []


def _audio_by_values(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str | None:
    for column in columns:
        values = [row[column] for row in rows if not is_missing(row.get(column))]
        fitting = sum(isinstance(v, str) and v.lower().endswith(AUDIO_SUFFIXES) for v in values)
        if values and fitting >= _ENOUGH * len(values):
            return column
    return None


def _letters(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether a column of answers holds letters of options."""
    values = [text_of(plain_value(row.get(column))) for row in rows]
    texts = [value for value in values if value]
    return bool(texts) and sum(bool(_LETTER.fullmatch(value)) for value in texts) >= _ENOUGH * len(texts)
