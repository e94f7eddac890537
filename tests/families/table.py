"""The README's table of families, made from the record that the tests write, not by hand.

    python -m tests.families.table            # print it
    python -m tests.families.table README.md  # put it between the markers there

The record is ``families/record.json`` in pytest's cache, or the file that ``MATA_FAMILIES_RECORD`` names.
Cells that it leaves open are filled, with a mark, from the record of a second environment, which
``make acceptance-families`` writes into ``.venv-families/record.json``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from .merging import MARK, merged

__all__ = ["BEGIN", "COLUMNS", "END", "placed", "table"]

BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".pytest_cache" / "d" / "families" / "record.json"
SECOND = ROOT / ".venv-families" / "record.json"
COLUMNS = {
    "hearing": "sound goes to its tokens",
    "masses": "masses = eager",
    "edits": "edits = eager",
    "left padding": "left padding",
    "decode": "generation",
    "sweep": "sweep",
    "layers": "layers",
    "bf16": "bf16",
    "reload": "reload",
    "processor": "items",
    "company": "alone = in a batch",
    "longest audio": "longest audio",
}
"""What the tests record -> heading of its column."""

OTHERS = (
    "no (0.5 sd): a longer clip in the batch changes a row's logits by up to half their standard deviation, "
    "because the model's encoder lets padding through. `--batch-size 1` avoids it, and `mata-interp check` "
    "says by how much in your model."
)


def table(record: dict) -> str:
    """The table as Markdown, with a dash for what no test has recorded."""
    second = record.get("second", {"versions": {}, "cells": {}})
    source = f"Shown by `tests/families` on tiny random models with {_listed(record['versions'])}"
    marked = f"; {MARK} with {_listed(second['versions'])}" if second["cells"] else ""
    lines = [
        f"{source}{marked}:",
        "",
        "| family | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (1 + len(COLUMNS)) + "|",
    ]
    notes: list[str] = []
    company = [str(result.get("company", "")) for result in record["families"].values()]
    if any(cell.startswith("no") for cell in company):
        lines[1:1] = ["", OTHERS]
    for family, result in record["families"].items():
        cells = []
        for what in COLUMNS:
            recorded = str(result.get(what, "–"))
            short, _, long = recorded.partition(": ")
            if long:
                note = f"{short}: {long}"
                notes += [] if note in notes else [note]
                short = f"{short} [{notes.index(note) + 1}]"
            if what in second["cells"].get(family, ()):
                short = f"{short} {MARK}"
            cells.append(short.replace("|", "\\|"))
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    lines += ["", *(f"[{number}] {note}  " for number, note in enumerate(notes, 1))] if notes else []
    return "\n".join(lines).rstrip() + "\n"


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def placed(text: str, record: dict) -> str:
    """A file's text with the table between its markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The file has no lines {BEGIN!r} and {END!r} to put the table between.")
    return f"{before}{BEGIN}\n{table(record)}{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description="The table of families out of the record of the tests.")
    parser.add_argument("file", nargs="?", type=Path, help="put it between the markers of this file")
    parser.add_argument("--second", type=Path, default=SECOND, help="the record of another environment")
    args = parser.parse_args()
    path = Path(os.environ.get("MATA_FAMILIES_RECORD") or CACHE)
    if not path.is_file():
        parser.error(f"there is no record {str(path)!r}: run pytest tests/families first")
    record = json.loads(path.read_text(encoding="utf-8"))
    if args.second.is_file():
        record = merged(record, json.loads(args.second.read_text(encoding="utf-8")))
    if args.file is None:
        print(table(record), end="")
    else:
        args.file.write_text(placed(args.file.read_text(encoding="utf-8"), record), encoding="utf-8")


if __name__ == "__main__":
    main()
