"""The result of a sweep with its labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mata_interp.benchmarks import Item
from mata_interp.interventions import describe
from mata_interp.lalm.batching import item_labels
from mata_interp.ranges import brief

from .paths import Parts

if TYPE_CHECKING:
    from mata_interp.lalm import LALM

__all__ = ["concatenate_choices", "configuration_labels", "item_coordinates", "table"]


def table(
    lalm: LALM,
    batches: Sequence[np.ndarray],
    items: Sequence[Item],
    configurations: Mapping[Any, Parts],
    kind: str,
    attrs: Mapping[str, Any],
) -> xr.DataArray:
    """``[item, configuration, kind]`` from batches [B, K, C], padded with NaN where options are fewer."""
    width = max(values.shape[-1] for values in batches)
    padded = [
        values  # logits are large: no copy without need
        if values.shape[-1] == width
        else np.pad(values, ((0, 0), (0, 0), (0, width - values.shape[-1])), constant_values=np.nan)
        for values in batches
    ]
    coords = {**item_coordinates(items), **configuration_labels(configurations)}
    if kind == "choice":
        answers = [item.choices.index(item.answer) if item.answer in item.choices else -1 for item in items]
        coords["answer"] = ("item", answers)
    dims = ("item", "configuration", kind)
    joined = padded[0] if len(padded) == 1 else np.concatenate(padded)
    return xr.DataArray(joined, coords, dims, "sweep", {"model": lalm.name, **attrs})


def concatenate_choices(batches: Sequence[np.ndarray]) -> np.ndarray:
    """Batches [B, K, C] one after the other, padded with NaN where options are fewer."""
    width = max(values.shape[-1] for values in batches)
    return np.concatenate(
        [
            np.pad(values, ((0, 0), (0, 0), (0, width - values.shape[-1])), constant_values=np.nan)
            for values in batches
        ]
    )


def item_coordinates(items: Sequence[Item]) -> dict[Hashable, Any]:
    """The items' ids, domains, kinds, conditions and clusters."""
    return {"item": [item.id for item in items], **item_labels(items)}


def configuration_labels(configurations: Mapping[Any, Parts]) -> dict[Hashable, Any]:
    """Names and settings of the configurations; of several in order, all: "abs then mul".

    The rule of a method that is no attention edit is the name of its class; ``settings`` describes it whole.
    """
    parts = list(configurations.values())
    alphas = [getattr(p[0], "alpha", np.nan) if len(p) == 1 else np.nan for p in parts]
    settings = {
        "rule": lambda part: getattr(part, "rule", type(part).__name__),
        "layers": lambda part: brief(part.layers) if part.layers else "",
        "heads": lambda part: str(getattr(part, "heads", "all")),
        # not called "keys": an array with keys is a dict to xarray
        "group": lambda part: str(getattr(part, "keys", "")),
        "queries": lambda part: part.queries,
        "phase": lambda part: part.phase,
        "settings": describe,
    }
    return {
        "configuration": list(configurations),
        "alpha": ("configuration", alphas),
        **{
            name: ("configuration", [" then ".join(map(setting, p)) for p in parts])
            for name, setting in settings.items()
        },
    }
