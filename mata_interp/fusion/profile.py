"""The result of `fusion_layers`: criteria over layers, their windows and everything they rest on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mata_interp.errors import RunError
from mata_interp.interventions import AttentionEdit
from mata_interp.markup import frame, line, table
from mata_interp.ranges import layer_range

from .boundaries import Boundary
from .windows import overlap

__all__ = ["SCHEMA_VERSION", "FusionProfile"]

SCHEMA_VERSION = 3
"""Version of the files that :meth:`FusionProfile.save` writes."""


@dataclass(frozen=True, eq=False, repr=False)
class FusionProfile:
    """Criteria for where text reads the audio, the window of each, and the recommended window.

    ``Mata(layers=profile)`` edits ``window`` and carries ``chosen_on``.

    Attributes:
        model: name of the model.
        window: the recommended layers, sorted; empty if fusion is not concentrated or not detectable.
        summary: the finding in plain English.
        verdict: ``"found"``, ``"no effect"``, ``"spread"``, ``"too few clips"`` or ``"nothing measured"``.
        windows: layers of each criterion.
        boundaries: of ``"window"`` and of each criterion, the boundaries of its contiguous runs with 95 %
            bootstrap intervals.
        profiles: float64 [criterion, item, layer], each criterion in its own unit. ``label``, ``evidence``,
            ``reads`` and ``unit`` of a criterion and ``cluster`` of an item are coordinates.
        support: [criterion, layer], with ``"window"`` among the criteria: the fraction of bootstrap resamples
            whose window has the layer; NaN with a single clip.
        share: [layer], share of each layer in what all layers count, which decides the recommended window,
            with ``low`` and ``high``, the simultaneous 95 % band (NaN with fewer than 6 clips).
        stability: predicted probability that as many other clips give a window that overlaps this one by half
            (IoU >= 0.5); None without a window.
        clips: number of clips that decided.
        clips_needed: with the verdict ``"too few clips"``, about how many would be needed; else None.
        effect: [item], what it costs to hide the audio from all text in all layers, nats, with ``cluster``
            as a coordinate; None if the criteria that need it were not measured.
        heads: [layer, head], what each head adds to the margin (right - best wrong, logits) from the audio by
            direct attribution, mean over items, with ``low`` and ``high``; None if that was not measured.
        chosen_on: clusters of the items that were used.
        refused: criterion -> why it could not be measured on this model.
        excluded: items that were left out, one line each: id, field, reason.
        baseline: interventions that were active in all measurements; normally none.
        seed: seed of the bootstrap and of the choice of counterfactual audio.

    Examples:
        >>> import mata_interp as mi
        >>> lalm = mi.LALM.from_pretrained("organism")
        >>> items = mi.load_benchmark("listening").split("selection")[:2]
        >>> profile = mi.fusion_layers(lalm, items, criteria=["depth"], progress=False)
        >>> profile
        <FusionProfile of 'organism' on 2 items: window [], nothing measured>
        >>> profile.windows["depth"]
        (3, 4, 5)
    """

    model: str
    window: tuple[int, ...]
    summary: str
    verdict: str
    windows: Mapping[str, tuple[int, ...]]
    boundaries: Mapping[str, list[Boundary]]
    profiles: xr.DataArray
    support: xr.DataArray
    share: xr.DataArray
    effect: xr.DataArray | None
    heads: xr.DataArray | None
    chosen_on: tuple[str, ...]
    stability: float | None = None
    clips: int = 0
    clips_needed: int | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    baseline: tuple[AttentionEdit, ...] = ()
    seed: int = 0

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers that were measured: those of the decoder that have attention."""
        return tuple(int(layer) for layer in self.profiles["layer"].values)

    @property
    def agreement(self) -> pd.DataFrame:
        """Intersection over union of every two windows, the recommended one ("window") first."""
        windows = {"window": self.window, **self.windows}
        table = [[overlap(a, b) for b in windows.values()] for a in windows.values()]
        return pd.DataFrame(table, list(windows), list(windows))

    @property
    def mean(self) -> xr.DataArray:
        """[criterion, layer]: means of the profiles over items."""
        return self.profiles.mean("item", skipna=True)

    @property
    def audio_heads(self) -> pd.DataFrame:
        """The heads that write audio information into the answer, largest contribution first.

        Columns ``layer``, ``head``, ``attribution`` (logits), ``low`` and ``high``, of the heads whose 95 %
        interval lies above 0. Intervals are of single heads, not corrected for their number. There are no
        rows if direct attribution was not measured. Direct attribution is not causal; see
        `mata_interp.sweeps.head_configs` for knockouts of heads.
        """
        columns = ["layer", "head", "attribution", "low", "high"]
        if self.heads is None:
            return pd.DataFrame(columns=columns)
        table = self.heads.to_dataframe().reset_index().loc[:, columns].dropna()
        return table.loc[table["low"] > 0].sort_values("attribution", ascending=False, ignore_index=True)

    def __str__(self) -> str:
        return self.summary

    def __repr__(self) -> str:
        items = self.profiles.sizes["item"]
        return (
            f"<FusionProfile of {self.model!r} on {items} items: window {list(self.window)}, {self.verdict}>"
        )

    def _repr_html_(self) -> str:
        """The finding and the windows of the criteria, for notebooks."""
        agreement = self.agreement["window"]
        rows = [("recommended", "", layer_range(self.window), "")]
        for name, window in self.windows.items():
            about = self.profiles.sel(criterion=name)
            label, evidence = (str(about[key].item()) for key in ("label", "evidence"))
            rows.append((label, evidence, layer_range(window), f"{agreement[name]:.2f}"))
        columns = ("criterion", "evidence", "layers", "overlap (IoU)")
        refused = "; ".join(f"{name} was not measured: {reason}" for name, reason in self.refused.items())
        title = f"Fusion profile of {self.model} on {self.profiles.sizes['item']} items"
        return frame(title, line(self.summary), table(columns, rows, refused))

    def save(self, path: str | Path) -> None:
        """Write the profile as JSON. The file appears whole or not at all.

        Args:
            path: the file; it is replaced if it exists.

        Raises:
            RunError: the file cannot be written.
        """
        path = Path(path).expanduser()
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(self.to_json() + "\n", encoding="utf-8")
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise RunError(f"Cannot write the fusion profile {str(path)!r}: {error.strerror}.") from error

    @classmethod
    def load(cls, path: str | Path) -> FusionProfile:
        """Read a profile that :meth:`save` wrote.

        Args:
            path: the file.

        Raises:
            RunError: there is no such file, or it holds something else, or has another schema version.
        """
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise RunError(f"Cannot read a fusion profile from {_short(path)}: {reason}.") from error
        return cls._parse(text, _short(path))

    def to_json(self) -> str:
        """The profile as JSON text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, source: str | Path) -> FusionProfile:
        """Read a profile from JSON text or from a file.

        Args:
            source: JSON text (a string that starts with ``{``), or the path of a file.

        Raises:
            RunError: it is no fusion profile, or has another schema version.
        """
        if isinstance(source, str) and source.lstrip().startswith("{"):
            return cls._parse(source, "the given text")
        return cls.load(source)

    @classmethod
    def _parse(cls, text: str, where: str) -> FusionProfile:
        try:
            return cls.from_dict(json.loads(text))
        except RunError as error:
            raise RunError(f"Cannot read a fusion profile from {where}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            problem = f"{type(error).__name__}: {error}"[:120]
            raise RunError(f"Cannot read a fusion profile from {where}: {problem}.") from error

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain data, fit for JSON: numbers, strings, lists and dicts, None for NaN."""
        profiles, support = self.profiles, self.support
        criteria = {}
        for i, name in enumerate(profiles["criterion"].values):
            entry = {key: str(profiles[key].values[i]) for key in COORDINATES}
            criteria[str(name)] = {**entry, "profile": _numbers(profiles.values[i])}
        heads = None
        if self.heads is not None:
            ends = {end: _numbers(self.heads[end].values) for end in ("low", "high")}
            heads = {"mean": _numbers(self.heads.values), **ends}
        names = [str(name) for name in support["criterion"].values]
        return {
            "schema_version": SCHEMA_VERSION,
            "window": list(self.window),
            "summary": self.summary,
            "verdict": self.verdict,
            "model": self.model,
            "layers": list(self.layers),
            "share": _numbers(self.share.values),
            "share_low": _numbers(self.share["low"].values),
            "share_high": _numbers(self.share["high"].values),
            "effect": None if self.effect is None else _numbers(self.effect.values),
            "stability": self.stability,
            "clips": self.clips,
            "clips_needed": self.clips_needed,
            "windows": {name: list(layers) for name, layers in self.windows.items()},
            "boundaries": {name: list(edges) for name, edges in self.boundaries.items()},
            "agreement": {a: dict(row) for a, row in self.agreement.round(4).T.to_dict().items()},
            "support": {name: _numbers(row) for name, row in zip(names, support.values, strict=True)},
            "criteria": criteria,
            "items": [str(item) for item in profiles["item"].values],
            "clusters": [str(cluster) for cluster in profiles["cluster"].values],
            "heads": heads,
            "chosen_on": list(self.chosen_on),
            "refused": dict(self.refused),
            "excluded": list(self.excluded),
            "baseline": [part.to_dict() for part in self.baseline],
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FusionProfile:
        """The profile that :meth:`to_dict` made plain data of.

        Raises:
            RunError: the data have another schema version.
        """
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RunError(
                f"schema_version is {version!r}, and this version of mata_interp reads {SCHEMA_VERSION}. "
                "Measure the profile again with `mata-interp layers`."
            )
        layers, criteria, heads = data["layers"], data["criteria"], data["heads"]
        support = data["support"]
        return cls(
            model=data["model"],
            window=tuple(data["window"]),
            summary=data["summary"],
            verdict=data["verdict"],
            windows={name: tuple(some) for name, some in data["windows"].items()},
            boundaries=data["boundaries"],
            profiles=label_profiles(
                {name: _array(entry["profile"]) for name, entry in criteria.items()},
                criteria,
                data["items"],
                data["clusters"],
                layers,
            ),
            support=xr.DataArray(
                _array(list(support.values())),
                {"criterion": list(support), "layer": layers},
                ("criterion", "layer"),
            ),
            share=label_share(
                _array(data["share"]), _array(data["share_low"]), _array(data["share_high"]), layers
            ),
            stability=data["stability"],
            clips=data["clips"],
            clips_needed=data["clips_needed"],
            effect=None
            if data["effect"] is None
            else label_effect(_array(data["effect"]), data["items"], data["clusters"]),
            heads=None
            if heads is None
            else label_heads(_array(heads["mean"]), _array(heads["low"]), _array(heads["high"]), layers),
            chosen_on=tuple(data["chosen_on"]),
            refused=data["refused"],
            excluded=tuple(data["excluded"]),
            baseline=tuple(AttentionEdit.from_dict(part) for part in data["baseline"]),
            seed=data["seed"],
        )


COORDINATES = ("label", "evidence", "reads", "unit")
"""Attributes of a criterion that a profile carries along."""


def label_profiles(
    profiles: Mapping[str, np.ndarray],
    attributes: Mapping[str, Mapping[str, str]],
    items: Sequence[str],
    clusters: Sequence[str],
    layers: Sequence[int],
) -> xr.DataArray:
    """Profiles as one labelled array [criterion, item, layer].

    Args:
        profiles: of each criterion, [item, layer].
        attributes: of each criterion, its ``COORDINATES``.
        items: id of each item.
        clusters: cluster of each item.
        layers: index of each layer.
    """
    values = np.array(list(profiles.values())).reshape(len(profiles), len(items), len(layers))
    coords: dict[Any, Any] = {
        "criterion": list(profiles),
        "item": list(items),
        "layer": list(layers),
        "cluster": ("item", list(clusters)),
    }
    for key in COORDINATES:
        coords[key] = ("criterion", [attributes[name][key] for name in profiles])
    return xr.DataArray(values, coords, ("criterion", "item", "layer"), "profile")


def label_share(share: np.ndarray, low: np.ndarray, high: np.ndarray, layers: Sequence[int]) -> xr.DataArray:
    """A labelled array [layer] with its band as coordinates."""
    coords = {"layer": list(layers), "low": ("layer", low), "high": ("layer", high)}
    return xr.DataArray(share, coords, ("layer",), "share")


def label_effect(effect: np.ndarray, items: Sequence[str], clusters: Sequence[str]) -> xr.DataArray:
    """A labelled array [item] with the cluster of each item as a coordinate."""
    return xr.DataArray(
        effect, {"item": list(items), "cluster": ("item", list(clusters))}, ("item",), "effect"
    )


def label_heads(mean: np.ndarray, low: np.ndarray, high: np.ndarray, layers: Sequence[int]) -> xr.DataArray:
    """A labelled array [layer, head] with its interval as coordinates."""
    dims = ("layer", "head")
    coords = {"layer": list(layers), "head": np.arange(mean.shape[1])}
    return xr.DataArray(mean, {**coords, "low": (dims, low), "high": (dims, high)}, dims, "attribution")


def _short(path: str | Path) -> str:
    """A path in quotes, at most its last 80 characters, which hold the file's name."""
    text = str(path)
    return repr(text if len(text) <= 80 else f"...{text[-77:]}")


def _numbers(values: np.ndarray) -> Any:
    """Nested lists of numbers, None for what is not finite."""
    if values.ndim:
        return [_numbers(part) for part in values]
    return float(values) if np.isfinite(values) else None


def _array(values: Any) -> np.ndarray:
    return np.array(values, dtype=float)  # None becomes NaN
