"""Every public path gives the CPU's numbers on one device, on two, and with weights on the CPU and disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.second_device.accelerator import compiler
from tests.second_device.facts import FACTS
from tests.second_device.paths import LONG, PATHS
from tests.second_device.placements import PLACEMENTS

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler for the pretend accelerator")

BOUND = 1e-5
"""Largest difference from the CPU, relative to the largest number of a result."""

SHORT = [name for name in PATHS if name not in LONG]


def run(folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """The results of `tests.second_device.run` in a process of its own."""
    results = folder / "results.json"
    command = [sys.executable, "-m", "tests.second_device.run", str(results), *arguments]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(results.read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict[str, Any]]:
    return run(tmp_path_factory.mktemp("devices"), "--path", *SHORT)


@pytest.mark.parametrize("fact", FACTS)
def test_the_accelerator(results, fact):
    assert not results["facts"][fact], results["facts"][fact]


@pytest.mark.parametrize("path", SHORT)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_path_gives_the_numbers_of_the_cpu(results, placement, path):
    require_equal(results[placement][path])


def require_equal(result: dict[str, Any]) -> None:
    assert "error" not in result, result["error"]
    assert result["unequal"] == []
    assert {name: apart for name, apart in result["differences"].items() if apart > BOUND} == {}


@pytest.mark.acceptance
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_organism_on_devices(tmp_path, placement):
    """All paths, the check and a study among them, on the model that ships."""
    measured = run(tmp_path, "--model", "organism", "--placement", placement)
    assert set(measured[placement]) == set(PATHS)
    for result in measured[placement].values():
        require_equal(result)
