"""Files of predictions for the leaderboards of benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError, ItemError
from .reading import read_records
from .scoring import RULES, index_by_id

__all__ = ["write_submission"]


def write_submission(
    records: Sequence[Mapping[str, Any]], predictions: Mapping[str, str], benchmark: str, path: str | Path
) -> int:
    """Write the file that the benchmark's leaderboard accepts: all its records, each with its prediction.

    Args:
        records: records of the data file, such as the test set of MMAU, whose answers are not released.
        predictions: id -> text of the model's answer. A record without one is written without the key.
        benchmark: ``"mmau"`` or ``"mmar"``.
        path: the file to write; ``.jsonl`` gives JSON lines.

    Returns:
        The number of records without a prediction.

    Raises:
        BenchmarkError: there is no format of this benchmark, or the file cannot be written.
        ItemError: a prediction has an id that no record has; an id of the records is missing or repeated.
    """
    if benchmark not in RULES:
        raise BenchmarkError(f"No submission format of {benchmark!r}: there are those of {', '.join(RULES)}.")
    key, by_id = RULES[benchmark].keys[0], index_by_id(records, "records")
    for name in predictions:
        if name not in by_id:
            raise ItemError(name, "id", "the benchmark has no such id.")
    rows = [
        {**record, key: predictions[name]} if name in predictions else dict(record)
        for name, record in by_id.items()
    ]
    _write(rows, Path(path).expanduser())
    return len(rows) - len(predictions)


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the rows under a temporary name, read them back, and rename the file."""
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif path.suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=1)
    else:
        raise BenchmarkError(f"A submission is .json or .jsonl: {str(path)!r} is neither.")
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        part.write_text(text, encoding="utf-8")
        if json.dumps(read_records(part)) != json.dumps(rows):
            raise BenchmarkError(f"{str(path)!r} does not read back as it was written: check the disk.")
        part.replace(path)
    except (OSError, UnicodeEncodeError) as error:
        raise BenchmarkError(f"{str(path)!r} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)
