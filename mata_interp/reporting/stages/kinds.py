"""Which kind of result a path holds, by the names of its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ...errors import RunError

__all__ = ["KINDS", "LAYERS", "SWEEP", "Kind", "kind_of"]

Kind = Literal["run", "sweep", "layers"]
KINDS: Mapping[Kind, str] = {"run": "a run", "sweep": "a sweep", "layers": "a layer profile"}
MANIFEST, SWEEP, LAYERS = "manifest.json", "sweep.nc", "layers.json"


def kind_of(path: Path) -> Kind:
    """The kind of a result; a folder with none of the known files counts as a run, which says what it lacks.

    Raises:
        RunError: There is no such file, or a file of an unknown kind.
    """
    if path.is_dir():
        if (path / MANIFEST).exists():
            return "run"
        return "sweep" if (path / SWEEP).exists() else "layers" if (path / LAYERS).exists() else "run"
    if path.suffix in (".nc", ".json") and path.exists():
        return "sweep" if path.suffix == ".nc" else "layers"
    if path.exists():
        raise RunError(
            f"{path} is neither a folder nor a file of a known kind (sweep.nc, layers.json): give the "
            "folder of "
            "a study, run or sweep, or the JSON file of a layer profile."
        )
    return "run"
