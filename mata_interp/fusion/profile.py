"""What was found about fusion layers, with all that it rests on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mata_interp.errors import RunError
from mata_interp.interventions import AttentionEdit

from .bounds import Boundary
from .windows import overlap

__all__ = ["FusionProfile"]

DIGITS = 7


@dataclass(frozen=True, eq=False)
class FusionProfile:
    """Where text takes in what was heard: criteria over layers, the window of each, and the one to use.

    ``Mata(layers=profile)`` edits ``window``, and carries ``chosen_on``.

    Attributes:
        model: whose layers these are.
        window: recommended: sorted, in one piece or several; empty where there is no concentrated fusion.
        sentence: the finding in plain English.
        verdict: ``"found"``, ``"no effect"``, ``"spread"``, ``"noise"`` or ``"nothing measured"``.
        windows: of each criterion, its layers.
        interval: of ``"window"`` and of each criterion, the boundaries of its pieces with their intervals.
        profiles: float64 [criterion, item, layer], in each criterion's own unit; ``label``, ``evidence``,
            ``reads`` and ``unit`` of a criterion and ``cluster`` of an item are coordinates.
        support: [criterion, layer], ``"window"`` among the criteria: in which fraction of bootstrap resamples
            a layer is in the window; NaN with a single clip.
        share: [layer], each layer's part in the effect of the sound that the window was cut from.
        heads: [layer, head], what each head adds to the margin (right - best wrong, logits) from the sound by
            direct attribution, mean over items, with ``low`` and ``high``; None if that was not measured.
        chosen_on: the clips (clusters of items) it was made on.
        refused: criteria that could not be measured on this model -> why.
        excluded: items left out, a line each.
        baseline: interventions that were in force all the time; as a rule, none.
        seed: of the bootstrap and of the choice of other sounds.
    """

    model: str
    window: tuple[int, ...]
    sentence: str
    verdict: str
    windows: Mapping[str, tuple[int, ...]]
    interval: Mapping[str, list[Boundary]]
    profiles: xr.DataArray
    support: xr.DataArray
    share: xr.DataArray
    heads: xr.DataArray | None
    chosen_on: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    baseline: tuple[AttentionEdit, ...] = ()
    seed: int = 0

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers looked at: the decoder's, those without attention left out."""
        return tuple(int(layer) for layer in self.profiles["layer"].values)

    @property
    def agreement(self) -> pd.DataFrame:
        """Intersection over union of every two windows, the recommended one ("window") first."""
        every = {"window": self.window, **self.windows}
        table = [[overlap(a, b) for b in every.values()] for a in every.values()]
        return pd.DataFrame(table, list(every), list(every))

    @property
    def mean(self) -> xr.DataArray:
        """[criterion, layer]: the profiles' means over items."""
        return self.profiles.mean("item", skipna=True)

    @property
    def carriers(self) -> pd.DataFrame:
        """The heads that carry the sound to the answer, those that add most to the margin first.

        Columns ``layer``, ``head``, ``attribution`` (logits), ``low`` and ``high``: of the heads whose 95 %
        interval is above 0, each by itself, not corrected for how many heads there are. No rows where direct
        attribution was not measured. For causes, see `mata_interp.sweeps.head_map`.
        """
        columns = ["layer", "head", "attribution", "low", "high"]
        if self.heads is None:
            return pd.DataFrame(columns=columns)
        table = self.heads.to_dataframe().reset_index().loc[:, columns].dropna()
        return table.loc[table["low"] > 0].sort_values("attribution", ascending=False, ignore_index=True)

    def __str__(self) -> str:
        return self.sentence

    def __repr__(self) -> str:
        items = self.profiles.sizes["item"]
        return f"<FusionProfile of {self.model!r} on {items} items: window {list(self.window)}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``{"window": [first, ..., last], ...}``."""
        profiles = self.profiles
        return {
            "window": list(self.window),
            "sentence": self.sentence,
            "verdict": self.verdict,
            "model": self.model,
            "layers": list(self.layers),
            "share": _numbers(self.share.values),
            "windows": {name: list(layers) for name, layers in self.windows.items()},
            "interval": {name: list(edges) for name, edges in self.interval.items()},
            "agreement": {a: dict(row) for a, row in self.agreement.round(4).T.to_dict().items()},
            "support": {
                str(name): _numbers(row)
                for name, row in zip(self.support["criterion"].values, self.support.values, strict=True)
            },
            "criteria": {
                str(name): {
                    **{k: str(profiles[k].values[i]) for k in ("label", "evidence", "reads", "unit")},
                    "profile": _numbers(profiles.values[i]),
                }
                for i, name in enumerate(profiles["criterion"].values)
            },
            "items": [str(item) for item in profiles["item"].values],
            "clusters": [str(cluster) for cluster in profiles["cluster"].values],
            "heads": None
            if self.heads is None
            else {
                "mean": _numbers(self.heads.values),
                **{end: _numbers(self.heads[end].values) for end in ("low", "high")},
            },
            "chosen_on": list(self.chosen_on),
            "refused": dict(self.refused),
            "excluded": list(self.excluded),
            "baseline": [part.to_dict() for part in self.baseline],
            "seed": self.seed,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """As JSON; written to ``path``, if one is given."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FusionProfile:
        """From what :meth:`to_dict` gave."""
        layers, criteria = data["layers"], data["criteria"]
        profiles = labelled(
            {name: _array(entry["profile"]) for name, entry in criteria.items()},
            {name: entry for name, entry in criteria.items()},
            data["items"],
            data["clusters"],
            layers,
        )
        support = data["support"]
        heads = data["heads"]
        return cls(
            model=data["model"],
            window=tuple(data["window"]),
            sentence=data["sentence"],
            verdict=data["verdict"],
            windows={name: tuple(some) for name, some in data["windows"].items()},
            interval=data["interval"],
            profiles=profiles,
            support=xr.DataArray(
                _array(list(support.values())),
                {"criterion": list(support), "layer": layers},
                ("criterion", "layer"),
            ),
            share=xr.DataArray(_array(data["share"]), {"layer": layers}, ("layer",)),
            heads=None
            if heads is None
            else by_head(_array(heads["mean"]), _array(heads["low"]), _array(heads["high"]), layers),
            chosen_on=tuple(data["chosen_on"]),
            refused=data["refused"],
            excluded=tuple(data["excluded"]),
            baseline=tuple(AttentionEdit.from_dict(part) for part in data.get("baseline", ())),
            seed=data["seed"],
        )

    @classmethod
    def from_json(cls, path: str | Path) -> FusionProfile:
        """From a file that :meth:`to_json` wrote.

        Raises:
            RunError: there is none, or it holds something else.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"cannot read a fusion profile from {path}: {error!r}.") from error


def labelled(
    profiles: Mapping[str, np.ndarray],
    about: Mapping[str, Mapping[str, str]],
    items: Sequence[str],
    clusters: Sequence[str],
    layers: Sequence[int],
) -> xr.DataArray:
    """Profiles [item, layer] by criterion as one array with its labels."""
    values = np.array(list(profiles.values())).reshape(len(profiles), len(items), len(layers))
    coords: dict[Any, Any] = {
        "criterion": list(profiles),
        "item": list(items),
        "layer": list(layers),
        "cluster": ("item", list(clusters)),
    }
    for key in ("label", "evidence", "reads", "unit"):
        coords[key] = ("criterion", [about[name][key] for name in profiles])
    return xr.DataArray(values, coords, ("criterion", "item", "layer"), "profile")


def by_head(mean: np.ndarray, low: np.ndarray, high: np.ndarray, layers: Sequence[int]) -> xr.DataArray:
    """[layer, head] with its interval."""
    dims = ("layer", "head")
    coords = {"layer": list(layers), "head": np.arange(mean.shape[1])}
    return xr.DataArray(mean, {**coords, "low": (dims, low), "high": (dims, high)}, dims, "attribution")


def _numbers(values: np.ndarray) -> Any:
    """Nested lists, rounded to seven digits, None for NaN."""
    if values.ndim:
        return [_numbers(part) for part in values]
    return None if not np.isfinite(values) else float(f"{float(values):.{DIGITS}g}")


def _array(values: Any) -> np.ndarray:
    return np.array(values, dtype=float)  # None becomes NaN
