"""Execute the notebooks: ``python -m tests.notebooks.execute [NAME ...]`` writes ``notebooks/NAME.ipynb``.

The source of each is ``notebooks/NAME.py`` (jupytext, percent format). The ``.ipynb`` beside it has the
outputs, so that it reads on GitHub, and the SHA-256 of the source that was executed.
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


def source_hash(path: Path) -> str:
    """SHA-256 of a source."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
        "mata_interp": {"source_sha256": source_hash(path)},
    }
    return notebook


def main(names: list[str]) -> None:
    """Execute the named notebooks, or all of them."""
    for path in SOURCES:
        if names and path.stem not in names:
            continue
        started = time.perf_counter()
        jupytext.write(execute(path), path.with_suffix(".ipynb"))
        print(f"{path.stem}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
