"""Execute the notebooks: ``python -m tests.notebooks.execute [NAME ...]`` writes ``notebooks/NAME.ipynb``.

The source of each is ``notebooks/NAME.py`` (jupytext, percent format). The ``.ipynb`` beside it has the
outputs, so that it reads on GitHub, and the SHA-256 of the code that was executed. Where only the text
between the code has changed, ``--texts`` takes it over and leaves the outputs as they are.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient

from mata_interp.cli import UNINFORMATIVE

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
SECONDS = 600  # for one cell
QUIET = f"import logging\nfor name in {UNINFORMATIVE!r}: logging.getLogger(name).setLevel(logging.ERROR)"
"""torchao, which tests need, reports kernels that the machine lacks; the commands silence it as well."""


def code_hash(notebook: Any) -> str:
    """SHA-256 of the code cells of a notebook, which decide its outputs."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\n\n".join(code).encode()).hexdigest()


def take_over_texts(path: Path) -> Any:
    """The stored notebook with the text of its source.

    Raises:
        ValueError: the code is not that which was executed, so the notebook has to be executed again.
    """
    source, stored = jupytext.read(path), jupytext.read(path.with_suffix(".ipynb"))
    if code_hash(source) != stored.metadata["mata_interp"]["code_sha256"]:
        raise ValueError(f"The code of {path.stem} was changed: execute it.")
    executed = iter([cell for cell in stored.cells if cell.cell_type == "code"])
    stored.cells = [next(executed) if cell.cell_type == "code" else cell for cell in source.cells]
    return with_ids(stored)


def with_ids(notebook: Any) -> Any:
    """The notebook with cells numbered from 0, as random ids would change with every execution."""
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def execute(path: Path) -> Any:
    """Run a source in an empty folder; the notebook with its outputs and without times and random ids.

    Raises:
        CellExecutionError: a cell raises an error.
    """
    notebook = jupytext.read(path)
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # draw inline
    environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    environment["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm, where ipywidgets is not installed
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=SECONDS, resources={"metadata": {"path": folder}}, record_timing=False
        )
        with client.setup_kernel(env=environment):
            client.kc.execute(QUIET, silent=True, store_history=False)
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
        "mata_interp": {"code_sha256": code_hash(notebook)},
    }
    return with_ids(notebook)


def main(names: list[str]) -> None:
    """Execute the named notebooks, or all of them; with ``--texts``, take over their texts alone."""
    chosen = [name for name in names if name != "--texts"]
    for path in SOURCES:
        if chosen and path.stem not in chosen:
            continue
        started = time.perf_counter()
        made = take_over_texts(path) if "--texts" in names else execute(path)
        jupytext.write(made, path.with_suffix(".ipynb"))
        print(f"{path.stem}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
