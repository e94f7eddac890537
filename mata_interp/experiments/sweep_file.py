"""The file of a study's sweep, or of ``mata-interp sweep``."""

from __future__ import annotations

import json
from pathlib import Path

import xarray as xr

from ..errors import RunError

__all__ = ["read_sweep"]


def read_sweep(path: Path) -> xr.DataArray:
    """The sweep of a study; RunError if the file is damaged."""
    try:
        scores = xr.load_dataarray(path, engine="scipy")
        json.loads(scores.attrs["manifest"])
    except (OSError, ValueError, TypeError, IndexError, KeyError) as error:
        raise RunError(
            f"cannot read {path}: {error}. Delete it, and the same study makes it again."
        ) from error
    return scores
