"""The notebooks run without warnings and draw; what is stored was executed from the source beside it."""

from __future__ import annotations

import re

import jupytext
import pytest

from .execute import SOURCES, execute, source_hash

QUICK = "1_quick_start"
LARGEST = 3_000_000  # bytes of a stored notebook; GitHub shows no more than some megabytes
NAMES = [path.stem for path in SOURCES]
all_notebooks = pytest.mark.parametrize("path", SOURCES, ids=NAMES)


def outputs(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def check(notebook) -> None:
    """A figure or more, and neither errors nor warnings nor progress bars."""
    found = outputs(notebook)
    assert sum("image/png" in output.get("data", {}) for output in found) >= 1
    assert not [output for output in found if output.output_type == "error"]
    assert not [output.text for output in found if output.get("name") == "stderr"]
    texts = " ".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in found
    )
    assert not re.search(r"Warning|\d+%\|", texts)


def test_there_are_eight():
    assert len(SOURCES) == 8
    assert QUICK in NAMES


@all_notebooks
def test_stored_outputs_are_those_of_the_source(path):
    stored = jupytext.read(path.with_suffix(".ipynb"))
    assert stored.metadata["mata_interp"]["source_sha256"] == source_hash(path), (
        f"{path.name} was changed since it was executed: python -m tests.notebooks.execute {path.stem}"
    )
    source = jupytext.read(path)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in source.cells]
    numbers = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert path.with_suffix(".ipynb").stat().st_size < LARGEST
    assert "/tmp" not in path.with_suffix(".ipynb").read_text(encoding="utf-8")
    check(stored)


def test_the_quick_start_runs():
    check(execute(next(path for path in SOURCES if path.stem == QUICK)))


@pytest.mark.acceptance
@pytest.mark.parametrize("path", [path for path in SOURCES if path.stem != QUICK], ids=lambda path: path.stem)
def test_every_notebook_runs(path):
    check(execute(path))
