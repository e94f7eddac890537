"""The notebooks run without warnings and draw; what is stored was executed from the source beside it."""

from __future__ import annotations

import re
import shutil

import jupytext
import pytest

from .execute import SOURCES, code_hash, execute, take_over_texts

QUICK = "1_quick_start"
LARGEST = 3_000_000  # bytes of a stored notebook; GitHub shows no more than some megabytes
NAMES = [path.stem for path in SOURCES]
all_notebooks = pytest.mark.parametrize("path", SOURCES, ids=NAMES)


def outputs(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def check(notebook) -> None:
    """A figure or more, and neither errors nor warnings nor progress bars."""
    cells = outputs(notebook)
    assert sum("image/png" in output.get("data", {}) for output in cells) >= 1
    assert not [output for output in cells if output.output_type == "error"]
    assert not [output.text for output in cells if output.get("name") == "stderr"]
    texts = " ".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cells
    )
    assert not re.search(r"Warning|\d+%\|", texts)


def test_there_are_eight():
    assert len(SOURCES) == 8
    assert QUICK in NAMES


@all_notebooks
def test_stored_outputs_are_those_of_the_source(path):
    stored = jupytext.read(path.with_suffix(".ipynb"))
    source = jupytext.read(path)
    assert stored.metadata["mata_interp"]["code_sha256"] == code_hash(source) == code_hash(stored), (
        f"{path.name} was changed since it was executed: python -m tests.notebooks.execute {path.stem}"
    )
    assert [cell.source for cell in stored.cells] == [cell.source for cell in source.cells], (
        f"the text of {path.name} was changed: python -m tests.notebooks.execute --texts {path.stem}"
    )
    numbers = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert path.with_suffix(".ipynb").stat().st_size < LARGEST
    assert "/tmp" not in path.with_suffix(".ipynb").read_text(encoding="utf-8")
    check(stored)


def test_texts_are_taken_over_and_changed_code_is_not(tmp_path):
    path = next(path for path in SOURCES if path.stem == QUICK)
    for file in (path, path.with_suffix(".ipynb")):
        shutil.copy(file, tmp_path)
    copy, text = tmp_path / path.name, path.read_text(encoding="utf-8")
    stored = jupytext.read(copy.with_suffix(".ipynb"))
    copy.write_text(
        text.replace("# %% [markdown]\n", "# %% [markdown]\n# New words.\n#\n", 1), encoding="utf-8"
    )
    made = take_over_texts(copy)
    assert made.cells[0].source.startswith("New words.")
    assert outputs(made) == outputs(stored)
    copy.write_text(text.replace("import mata_interp", "import mata_interp  # again", 1), encoding="utf-8")
    with pytest.raises(ValueError, match="execute it"):
        take_over_texts(copy)


def test_the_quick_start_runs():
    check(execute(next(path for path in SOURCES if path.stem == QUICK)))


@pytest.mark.acceptance
@pytest.mark.parametrize("path", [path for path in SOURCES if path.stem != QUICK], ids=lambda path: path.stem)
def test_every_notebook_runs(path):
    check(execute(path))
