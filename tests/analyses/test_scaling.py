"""The scaling analysis: its arithmetic, and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def scaling(*arguments: str) -> dict:
    command = [sys.executable, str(ROOT / "analyses" / "scaling.py"), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_on_paper(tmp_path):
    said = scaling("--paper", "--out", str(tmp_path))
    rows = {(row["answers"], row["method"], row["gpus"]): row for row in said["on_paper"]}
    assert len(rows) == 2 * 3 * 3
    several = "options of several tokens"
    loop, run, sweep = (rows[several, method, 8] for method in ("loop", "run", "sweep"))
    # a prefill, by hand: 2 x 7.7e9 x 870 + 2 x 0.64e9 x 1500 operations at 40 % of 312e12 a second
    prefill = (2 * 7.7e9 * 870 + 2 * 0.64e9 * 1500) / (0.4 * 312e12)
    assert loop["gpu_hours"] > 10_000 * 100 * prefill / 3600
    assert run["gpu_hours"] < loop["gpu_hours"] / 10
    assert sweep["gpu_hours"] < run["gpu_hours"]
    for row in rows.values():
        assert 0 < row["busy"] < 1
        assert row["hours"] * row["gpus"] > row["gpu_hours"]
    for method in ("loop", "run", "sweep"):
        hours = [rows[several, method, gpus]["hours"] for gpus in (8, 64, 512)]
        assert hours == sorted(hours, reverse=True)
    assert (tmp_path / "on_paper.csv").exists()


@pytest.mark.acceptance
def test_measured(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mata-interp[ray]'")
    said = scaling("--items", "24", "--workers", "1,2", "--batch-size", "2", "--out", str(tmp_path))
    assert [row["workers"] for row in said["measured"]] == ["one process", "1 on Ray", "2 on Ray"]
    assert all(row["alike"] for row in said["measured"])
    assert all(row["items_per_second"] > 0 for row in said["measured"])
