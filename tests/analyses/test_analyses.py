"""The analyses and the notebook run, on the model and benchmark that ship, and leave what they promise."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


def imported(name: str) -> Any:
    """A module of the analyses, which are no package."""
    sys.path.insert(0, str(ROOT / "analyses"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def analysis(name: str, *arguments: str) -> list[dict]:
    """Run an analysis with --json in a fresh process; its rows."""
    command = [sys.executable, str(ROOT / "analyses" / name), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_attention_imbalance(tmp_path):
    rows = analysis("attention_imbalance.py", "--items", "12", "--out", str(tmp_path))
    assert {row["model"] for row in rows} == {"organism", "organism-unbiased"}
    assert {row["condition"] for row in rows} == {"neutral", "congruent", "conflict"}
    assert len(rows) == 2 * 3 * 8
    for row in rows:
        assert 0 < row["low"] <= row["audio_share"] <= row["high"] < 1
        assert row["mdi"] > 0
        assert row["clips"] == 4
    assert (tmp_path / "imbalance.csv").exists()
    assert (tmp_path / "imbalance.png").read_bytes().startswith(b"\x89PNG")


def test_causal_effect(tmp_path):
    rows = analysis("causal_effect.py", "--items", "24", "--alphas=-1,2", "--out", str(tmp_path))
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["p"] <= row["p_holm"] <= 1
        assert row["fixed"] - row["broken"] == pytest.approx(row["n"] * row["difference"], abs=1e-6)
        assert row["dose_kl"] > 0
    assert (tmp_path / "effect_by_dose.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "parts").glob("*.parquet"))) >= 5


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda p: p.stem)
def test_notebook(path, tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel draws into the notebook
    notebook = jupytext.read(path)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2
    assert not [o for o in outputs if o.output_type == "error"]
