"""Shared by tests of several packages: the analyses, which are scripts and no package."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def import_analysis(name: str) -> Any:
    """A module of ``analyses/``, such as ``"scaling"`` or ``"support.ranking"``."""
    sys.path.insert(0, str(ROOT / "analyses"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def run_analysis(name: str, *arguments: str) -> Any:
    """Run an analysis with ``--json`` in a process of its own; what it prints."""
    command = [sys.executable, str(ROOT / "analyses" / name), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
