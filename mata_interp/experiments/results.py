"""Run: what a run folder holds, in memory; and `load_run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import xarray as xr

from ..errors import RunError
from .files import read_json
from .folder import RunFolder
from .notices import warn
from .records import SCHEMA, sort_records

__all__ = ["Run", "load_run", "read_trace"]


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """What was asked and answered.

    Attributes:
        path: the run folder; None for a run that was kept in memory.
        manifest: model, data, conditions, batches, seeds, environment (see ``manifest.json``).
        records: one row per item and condition, in order of condition, then item.
        trace: attention on the selection split, of a study; else None.
        effects: the table of comparisons, of a study; else None.
        study: what was chosen and found, of a study; else None.
        missing: number of parts still to be computed: 0 for a finished run.
    """

    path: Path | None
    manifest: dict[str, Any]
    records: pd.DataFrame
    trace: xr.Dataset | None = None
    effects: pd.DataFrame | None = None
    study: dict[str, Any] | None = None
    missing: int = 0

    @property
    def excluded(self) -> list[dict[str, str]]:
        """``{"item", "field", "reason"}`` of each item left out."""
        return self.manifest["excluded"] if self.study is None else self.study["excluded"]

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        items = self.records["item"].nunique()
        state = f", {self.missing} parts missing" if self.missing else ""
        return f"Run({where}: {items} items, conditions {list(self.manifest['conditions'])}{state})"


def load_run(path: str | Path) -> Run:
    """Read a run folder, finished or not.

    Warns:
        RunWarning: parts are missing or damaged; the records are those of the others.

    Raises:
        RunError: it is no run folder, or its manifest cannot be read.
    """
    folder = RunFolder(path)
    parts, damaged = folder.read_parts()
    missing = sum(1 for _ in folder.expected()) - len(parts)
    if missing:
        named = f" ({len(damaged)} of them damaged: {', '.join(damaged[:3])})" if damaged else ""
        warn(f"{path}: {missing} part(s) are missing{named}. The same run again computes them.")
    if others := folder.strangers():
        names = ", ".join(others[:3])
        warn(
            f"{path}/parts holds {len(others)} file(s) that are no part of this run ({names}): they are "
            "not counted here, but a reader of all *.parquet would count them. Move them away."
        )
    table = pa.concat_tables(parts.values()) if parts else SCHEMA.empty_table()
    trace, effects, study = (folder.path / name for name in ("trace.nc", "effects.json", "study.json"))
    return Run(
        path=folder.path,
        manifest=folder.manifest,
        records=sort_records(table.to_pandas(), list(folder.manifest["conditions"])),
        trace=read_trace(trace) if trace.exists() else None,
        effects=pd.DataFrame(read_json(effects)) if effects.exists() else None,
        study=read_json(study) if study.exists() else None,
        missing=missing,
    )


def read_trace(path: Path) -> xr.Dataset:
    """The trace of a study; RunError if the file is damaged."""
    try:
        return xr.load_dataset(path, engine="scipy")
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise RunError(
            f"cannot read {path}: {error}. Delete it, and the same study makes it again."
        ) from error
