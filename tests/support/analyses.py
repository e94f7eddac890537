"""Shared by tests of several packages: the analyses, which are scripts and no package."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import matplotlib
import torch

ROOT = Path(__file__).parents[2]


def import_analysis(name: str) -> Any:
    """A module of ``analyses/``, such as ``"scaling"`` or ``"support.ranking"``."""
    sys.path.insert(0, str(ROOT / "analyses"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def run_script(name: str, *arguments: str) -> str:
    """What a script of ``analyses/`` prints, run as ``__main__`` in this process, which has torch already."""
    script, printed = ROOT / "analyses" / name, io.StringIO()
    argv, path, threads = sys.argv, sys.path, torch.get_num_threads()
    sys.argv, sys.path = [str(script), *arguments], [str(script.parent), *path]
    try:
        with contextlib.redirect_stdout(printed), matplotlib.rc_context():  # some set a theme
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{name} ended with {end.code}: {printed.getvalue()}") from end
    finally:
        sys.argv, sys.path = argv, path
        torch.set_num_threads(threads)
    return printed.getvalue()


def run_analysis(name: str, *arguments: str) -> Any:
    """What an analysis prints with ``--json``."""
    return json.loads(run_script(name, *arguments, "--json"))
