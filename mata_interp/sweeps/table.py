"""The result of a sweep with its labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.interventions import AttentionEdit
from mata_interp.lalm.batching import item_labels
from mata_interp.ranges import brief

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["configuration_labels", "item_coordinates", "table"]


def table(
    lalm: LALM,
    found: Sequence[np.ndarray],
    items: Sequence[Item],
    configurations: Mapping[Any, tuple[AttentionEdit, ...]],
    kind: str,
    notes: Mapping[str, Any],
) -> xr.DataArray:
    """``[item, configuration, kind]`` from batches [B, K, C], padded with NaN where options are fewer."""
    width = max(values.shape[-1] for values in found)
    padded = [np.pad(v, ((0, 0), (0, 0), (0, width - v.shape[-1])), constant_values=np.nan) for v in found]
    coords = {**item_coordinates(items), **configuration_labels(configurations)}
    if kind == "choice":
        answers = [item.choices.index(item.answer) if item.answer in item.choices else -1 for item in items]
        coords["answer"] = ("item", answers)
    dims = ("item", "configuration", kind)
    return xr.DataArray(np.concatenate(padded), coords, dims, "sweep", {"model": lalm.name, **notes})


def item_coordinates(items: Sequence[Item]) -> dict[Hashable, Any]:
    """The items' ids, and what is known of each."""
    return {"item": [item.id for item in items], **item_labels(items)}


def configuration_labels(configurations: Mapping[Any, tuple[AttentionEdit, ...]]) -> dict[Hashable, Any]:
    """Names of the configurations, and what each does; of several in order, all: "abs then mul"."""
    parts = list(configurations.values())
    told = {
        "rule": lambda part: part.rule,
        "layers": lambda part: brief(part.layers),
        "heads": lambda part: str(part.heads),
        "group": lambda part: part.keys,  # not called "keys": an array with keys is a dict to xarray
        "queries": lambda part: part.queries,
        "phase": lambda part: part.phase,
    }
    return {
        "configuration": list(configurations),
        "alpha": ("configuration", [p[0].alpha if len(p) == 1 else np.nan for p in parts]),
        **{
            name: ("configuration", [" then ".join(map(what, p)) for p in parts])
            for name, what in told.items()
        },
    }
