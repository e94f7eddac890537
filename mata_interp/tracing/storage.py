"""Traces in files: netCDF that any tool reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from mata_interp.errors import RunError
from mata_interp.execution import refuse_other_work
from mata_interp.execution.files import write_whole

__all__ = ["read_finished", "read_trace", "write_trace"]

IDENTITY = "identity"  # the attribute that says what decides the content, as JSON


def write_trace(path: Path, trace: xr.Dataset, identity: Mapping[str, Any] | None = None) -> None:
    """Write a trace as netCDF, whole or not at all.

    Args:
        path: The file.
        trace: The trace.
        identity: What decides its content, for `read_finished`.
    """
    if identity is not None:
        trace = trace.assign_attrs({IDENTITY: json.dumps(identity)})
    content = trace.to_netcdf(engine="scipy")
    write_whole(path, lambda file: file.write(content))


def read_trace(path: Path) -> xr.Dataset:
    """Read a trace.

    Raises:
        RunError: The file is damaged.
    """
    try:
        return xr.load_dataset(path, engine="scipy")
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise RunError(f"cannot read {path}: {error}. Delete it, and run the same command again.") from error


def read_finished(path: Path, identity: Mapping[str, Any]) -> xr.Dataset | None:
    """The trace that the same call wrote before; None if there is no file.

    Raises:
        RunError: The file is damaged, was written by something else, or by another call.
    """
    if not path.exists():
        return None
    trace = read_trace(path)
    if IDENTITY not in trace.attrs:
        raise RunError(f"{path} is not a trace that can be continued. Choose another file (out=...).")
    refuse_other_work(path, json.loads(trace.attrs[IDENTITY]), identity)
    return trace
