"""The analyses and the notebooks run on the model and benchmark that ship, and write their results."""

from __future__ import annotations

import re
import subprocess
import sys

import jupytext
import pytest
from nbclient import NotebookClient

from tests.support.analyses import ROOT, run_analysis


def test_attention_imbalance(tmp_path):
    rows = run_analysis("attention_imbalance.py", "--items", "12", "--out", str(tmp_path))
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
    rows = run_analysis("causal_effect.py", "--items", "24", "--alphas=-1,2", "--out", str(tmp_path))
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


SCRIPTS = sorted(p.name for p in (ROOT / "analyses").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_has_the_question_and_examples(script):
    command = [sys.executable, str(ROOT / "analyses" / script), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "?" in text.split("--")[0]
    assert f"python analyses/{script}" in text


def test_the_index_has_every_script():
    linked = re.findall(r"\[(\w+\.py)\]\((\w+\.py)\)", (ROOT / "analyses" / "README.md").read_text())
    assert all(name == target for name, target in linked)
    assert sorted(name for name, _ in linked) == SCRIPTS
