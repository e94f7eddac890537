"""The selection sweep of a study: computed once, kept in one file, refused where it is of something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from ..errors import RunError
from ..execution import Output
from ..execution.files import plain, write_whole
from ..interventions import AttentionEdit
from ..sweeps import search_windows, sweep
from .choosing import BASELINE, Search
from .conditions import Edit, named_conditions
from .identity import difference, identity
from .manifest import make_manifest
from .planning import StageSettings, plan_batches
from .sweep_file import read_sweep
from .validation import ValidatedItems

if TYPE_CHECKING:
    from ..lalm import LALM

__all__ = ["refuse_other_sweep", "swept"]


def swept(
    lalm: LALM,
    validated: ValidatedItems,
    configurations: Mapping[str, Edit],
    path: Path,
    settings: StageSettings,
    search: Search = "full",
) -> xr.DataArray:
    """The sweep of these items, from the file or its parts if a study that was stopped left them there.

    With ``search="coarse"`` it is a search from coarse to fine over the configurations, ``BASELINE`` aside.

    The file is netCDF, whole or not there at all; its attribute ``manifest`` is that of a run of the same
    items under the same conditions, as JSON.

    Raises:
        RunError: the file is of another model, of other data or configurations, or damaged.
    """
    named = named_conditions(configurations)
    manifest = make_manifest(
        lalm, validated, named, {}, settings.batch_size, settings.seed, settings.prompt_format
    )
    if path.exists():
        refuse_other_sweep(path, manifest)
        _refuse_other_search(path, search)
    else:
        batches = plan_batches(validated.items, validated.lengths, settings.batch_size)
        items = [item for batch in batches for item in batch]
        output = Output(path, {"stage": "sweep", **identity(manifest)}, whole=False)
        options: dict[str, Any] = {
            "batch_size": settings.batch_size,
            "progress": settings.progress,
            "prompt_format": settings.prompt_format,
            "ray": settings.ray or False,
            "out": output,
        }
        if search == "coarse":
            edits = {name: edit for name, edit in configurations.items() if isinstance(edit, AttentionEdit)}
            scores = search_windows(lalm, items, edits, BASELINE, **options)
        else:
            scores = sweep(lalm, items, configurations, **options)
        scores = scores.assign_attrs(manifest=json.dumps(plain(manifest)))
        content = scores.to_netcdf(engine="scipy")
        write_whole(path, lambda file: file.write(content))
        output.remove_parts()
    return read_sweep(path)


def _refuse_other_search(path: Path, search: Search) -> None:
    there = read_sweep(path).attrs.get("search", "full")
    if there != search:
        raise RunError(
            f"{path} holds the sweep of a {there} search, and a {search} one is asked for. Choose another "
            f"folder (out=...), delete this file, or pass search={there!r}."
        )


def refuse_other_sweep(path: Path, known: Mapping[str, Any]) -> None:
    """Refuse a sweep that cannot be the one of which these fields of the manifest are known."""
    if path.exists() and (change := difference(json.loads(read_sweep(path).attrs["manifest"]), known)):
        raise RunError(
            f"{path} holds another sweep: {change}. Choose another folder (out=...), delete this file, or "
            "repeat the command that began it."
        )
