"""The result of a sweep with its labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.interventions import Intervention, Mata, in_order
from mata_interp.lalm.batching import item_labels
from mata_interp.ranges import brief

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["table"]


def table(
    lalm: LALM,
    found: Sequence[np.ndarray],
    items: Sequence[Item],
    configurations: Mapping[Any, Intervention],
    kind: str,
    notes: Mapping[str, Any],
) -> xr.DataArray:
    """``[item, configuration, kind]`` from batches [B, K, C], padded with NaN where options are fewer."""
    width = max(values.shape[-1] for values in found)
    padded = [np.pad(v, ((0, 0), (0, 0), (0, width - v.shape[-1])), constant_values=np.nan) for v in found]
    parts = [in_order(intervention) for intervention in configurations.values()]
    coords: dict[Hashable, Any] = {
        "item": [item.id for item in items],
        "configuration": list(configurations),
        **item_labels(items),
        "rule": ("configuration", [_told(p, lambda part: part.rule) for p in parts]),
        "alpha": ("configuration", [p[0].alpha if len(p) == 1 else np.nan for p in parts]),
        "layers": ("configuration", [_told(p, lambda part: brief(part.layers)) for p in parts]),
        "heads": ("configuration", [_told(p, lambda part: str(part.heads)) for p in parts]),
        # not called "keys": an array with keys is a dict to xarray
        "group": ("configuration", [_told(p, lambda part: part.keys) for p in parts]),
        "queries": ("configuration", [_told(p, lambda part: part.queries) for p in parts]),
        "phase": ("configuration", [_told(p, lambda part: part.phase) for p in parts]),
    }
    if kind == "choice":
        answers = [item.choices.index(item.answer) if item.answer in item.choices else -1 for item in items]
        coords["answer"] = ("item", answers)
    return xr.DataArray(
        np.concatenate(padded),
        coords,
        ("item", "configuration", kind),
        "sweep",
        {"model": lalm.name, **notes},
    )


def _told(parts: Sequence[Mata], what: Any) -> str:
    """Of several interventions in order, all; of none, nothing."""
    return " then ".join(what(part) for part in parts)
