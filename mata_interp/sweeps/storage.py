"""Sweeps in files: netCDF that any tool reads, and that comes back exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mata_interp.errors import ArgumentError
from mata_interp.execution.files import write_whole

__all__ = ["load_sweep", "save_sweep"]

_LAYOUT = "mata_interp_layout"  # the attribute that says what netCDF cannot
_UNNAMED = "mata_interp_unnamed"


def save_sweep(swept: xr.DataArray | xr.Dataset, path: str | Path) -> Path:
    """Write a sweep, a map or generated answers as netCDF 3; `load_sweep` reads it back exactly.

    Args:
        swept: from `sweep`, `sweep_generate` or `causal_map`.
        path: the file, which is replaced once the new one is whole.

    Returns:
        The path.

    Example:
        >>> import tempfile, mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening").sample(1)
        >>> swept = mi.sweep(lalm, items, {"none": None, "mata": mi.Mata(1.0, [3, 4])}, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mi.load_sweep(mi.save_sweep(swept, f"{folder}/sweep.nc")).identical(swept)
        True
    """
    path = Path(path).expanduser()
    data = swept.to_dataset(name=swept.name or _UNNAMED) if isinstance(swept, xr.DataArray) else swept.copy()
    layout = {
        "array": isinstance(swept, xr.DataArray) and (swept.name or _UNNAMED),
        "attrs": {name: _plain(value) for name, value in swept.attrs.items()},
        "dtypes": {str(name): str(data[name].dtype) for name in data.variables},
        "order": [str(name) for name in data.variables],
    }
    data.attrs = {name: _readable(value) for name, value in swept.attrs.items()}
    data.attrs[_LAYOUT] = json.dumps(layout)
    for name in data.variables:
        data[name].attrs = {}
    content = data.to_netcdf(engine="scipy")
    write_whole(path, lambda file: file.write(content))
    return path


def load_sweep(path: str | Path) -> Any:
    """Read what `save_sweep` wrote: the same DataArray or Dataset, with its dtypes and attributes.

    Args:
        path: the file.

    Raises:
        ArgumentError: there is no such file, or `save_sweep` did not write it.

    Examples:
        >>> import mata_interp as mi
        >>> lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
        >>> swept = mi.sweep(lalm, items[:2], {"none": None}, progress=False)
        >>> path = mi.save_sweep(swept, "sweep.nc")
        >>> mi.load_sweep(path).identical(swept)
        True
    """
    try:
        with xr.open_dataset(Path(path).expanduser(), engine="scipy") as stored:
            data = stored.load()
    except (OSError, ValueError, TypeError) as error:
        raise ArgumentError(f"Cannot read {path} as a sweep: {error}") from error
    if _LAYOUT not in data.attrs:
        raise ArgumentError(f"{path} was not written by save_sweep: open it with xarray.open_dataset.")
    layout = json.loads(data.attrs[_LAYOUT])
    for name, dtype in layout["dtypes"].items():
        variable = data[name]
        if str(variable.dtype) != dtype:
            data[name] = (variable.dims, variable.values.astype(dtype))
    data.attrs = layout["attrs"]
    for variable in data.variables.values():
        variable.encoding = {}
    if not layout["array"]:
        return data
    array = data[layout["array"]]
    array.attrs = layout["attrs"]
    return array.rename(None if layout["array"] == _UNNAMED else layout["array"])


def _plain(value: Any) -> Any:
    """A value of JSON that compares equal."""
    return value.item() if isinstance(value, np.generic) else value


def _readable(value: Any) -> Any:
    """A value that netCDF 3 can hold, for other tools."""
    value = _plain(value)
    return int(value) if isinstance(value, bool) else value if isinstance(value, int | float) else str(value)
