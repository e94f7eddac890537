"""Dose and response of a study: the margin at every alpha, and whether the items whose attention moved most
gained most."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
import pandas as pd
import xarray as xr

from ..interventions import AttentionEdit
from ..statistics import rank_association, selected_trend, simultaneous_band, trend_test
from ..statistics.choices import REFUSED, chosen_here
from ..sweeps import margin
from .conditions import Role
from .planned_comparisons import primary_subset

__all__ = ["DoseAssociation", "DosePoint", "DoseResponse", "dose_association", "dose_response"]

LEAST_ITEMS = 4
FIXED = "sign flips of whole clips"
REPEATED = "sign flips of whole clips, the choice of layers repeated under each"
INCOMPLETE = "none: layers were chosen, and not every configuration was tried on every item"


@dataclass(frozen=True)
class DosePoint:
    """The mean change of the margin at one strength, nats, with its simultaneous band; NaN without one."""

    alpha: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class DoseResponse:
    """The change of the margin in the chosen layers at every alpha, on the clips of the selection.

    Layers were chosen by these changes, so the curve is too favourable; the test of the trend repeats the
    choice.

    Attributes:
        layers: the chosen layers.
        points: the change at each alpha, in rising order.
        n, n_clusters: number of items and of clips.
        level: coverage of the band, which holds for all alphas together.
        slope: mean rise from one alpha to the next, nats.
        p: p-value of no trend, two-sided; NaN where there is none.
        p_method: the test, or why there is none.
    """

    layers: tuple[int, ...]
    points: tuple[DosePoint, ...]
    n: int
    n_clusters: int
    level: float
    slope: float
    p: float
    p_method: str


@dataclass(frozen=True)
class DoseAssociation:
    """Whether the tested items whose attention to audio rose most gained most; no evidence of mediation.

    Partial rank correlation of the rise of the audio mass under MATA with the change of the margin, among
    items alike in their margin without MATA (`rank_association`).

    Attributes:
        subset: column -> value of the items: those of the primary comparison.
        n, n_clusters: number of items and of clips.
        rho: the correlation, -1 to 1; NaN where one of both does not vary.
        low, high: its bootstrap interval over clips.
        permuted_low, permuted_high: the range of 95 % of the permuted correlations.
        p: permutation p-value, two-sided; NaN where there is none.
        p_method: the test, or why there is none.
    """

    subset: Mapping[str, str]
    n: int
    n_clusters: int
    rho: float
    low: float
    high: float
    permuted_low: float
    permuted_high: float
    p: float
    p_method: str


def dose_response(
    sweep: xr.DataArray,
    configurations: Mapping[str, AttentionEdit],
    layers: Sequence[int],
    baseline: str,
    seed: int = 0,
) -> DoseResponse | None:
    """The curve of the chosen layers, from the selection sweep.

    Args:
        sweep: the sweep.
        configurations: name -> configuration that could be chosen; those that a search left out are skipped.
        layers: the chosen layers.
        baseline: name of the configuration without intervention.
        seed: seed of the band and of the sign flips.

    Returns:
        The curve; None with fewer than two alphas or fewer than 4 items.
    """
    margins = margin(sweep)
    changes = margins - margins.sel(configuration=baseline, drop=True)
    tried = set(map(str, sweep["configuration"].values))
    curves: dict[tuple[int, ...], dict[float, str]] = {}
    for name, edit in configurations.items():
        if name in tried:
            curves.setdefault(tuple(edit.layers), {})[edit.alpha] = name
    curve = dict(sorted(curves.get(tuple(layers), {}).items()))
    change, clusters = _complete(changes, list(curve.values()))
    if len(curve) < 2 or len(change) < LEAST_ITEMS:
        return None
    band = simultaneous_band(change, clusters, seed=seed)
    there = isfinite(band.critical)
    points = tuple(
        DosePoint(alpha, *map(float, (mean, low if there else nan, high if there else nan)))
        for alpha, mean, low, high in zip(curve, band.mean, band.low, band.high, strict=True)
    )
    used = {clip for edit in configurations.values() for clip in edit.chosen_on}
    slope, p, method = _trend(changes, list(curves.values()), change, clusters, seed)
    if chosen_here(used, clusters):
        p, method = nan, REFUSED
    return DoseResponse(tuple(layers), points, len(change), len(set(clusters)), band.level, slope, p, method)


def _complete(changes: xr.DataArray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Changes ``[n, configurations]`` of the items that have all of these, and the items' clips."""
    values = changes.sel(configuration=list(names)).transpose("item", "configuration").values
    there = np.isfinite(values).all(1)
    return values[there], [str(clip) for clip in changes["cluster"].values[there]]


def _trend(
    changes: xr.DataArray,
    curves: Sequence[Mapping[float, str]],
    change: np.ndarray,
    clusters: list[str],
    seed: int,
) -> tuple[float, float, str]:
    """Slope and p-value of the curve whose changes are given, and the test.

    Args:
        changes: change of the margin, item by configuration.
        curves: of each set of layers, alpha -> name of the configuration.
        change: those of the chosen one, ``[n, alphas]``.
        clusters: clips of its items.
        seed: seed of the sign flips.
    """
    slope, p = trend_test(np.c_[np.zeros(len(change)), change], clusters, seed)
    if len(curves) == 1:
        return slope, p, FIXED
    alphas = sorted({alpha for curve in curves for alpha in curve})
    names = [curve.get(alpha) for curve in curves for alpha in alphas]
    if None in names:
        return slope, nan, INCOMPLETE
    every, clips = _complete(changes, [str(name) for name in names])
    if len(every) != len(change):
        return slope, nan, INCOMPLETE
    return slope, selected_trend(every.reshape(len(every), len(curves), -1), clips, seed=seed).p, REPEATED


def dose_association(
    records: pd.DataFrame,
    roles: Mapping[str, Role],
    chosen_on: Mapping[str, Collection[str]] | None = None,
    seed: int = 0,
) -> DoseAssociation | None:
    """Association of dose and gain on the items of the primary comparison.

    Args:
        records: records of a study, with known answers.
        roles: name of each condition -> its role.
        chosen_on: name of a condition -> the clips that it was chosen on; with one of these there is no
            p-value.
        seed: seed of permutations and bootstrap.

    Returns:
        The association; None without margins or doses, or with fewer than 4 items that have them.
    """
    names = {role: name for name, role in roles.items()}
    columns = {"dose_mass_before", "dose_mass_after", "margin"}
    if not {"baseline", "mata"} <= set(names) or not columns <= set(records):
        return None
    subset = primary_subset(records)
    part = records
    for column, value in subset.items():
        part = part.loc[part[column] == value]
    plain, edited = (
        part.loc[part["condition"] == names[role]].set_index("item").sort_index()
        for role in ("baseline", "mata")
    )
    paired = pd.DataFrame({
        "rise": edited["dose_mass_after"] - edited["dose_mass_before"],
        "before": plain["margin"],
        "gain": edited["margin"] - plain["margin"],
    }).astype(float).replace([np.inf, -np.inf], np.nan).dropna()  # fmt: skip
    if len(paired) < LEAST_ITEMS:
        return None
    clusters = edited.loc[paired.index, "cluster"].tolist()
    rise, before, gain = (paired[name].to_numpy() for name in ("rise", "before", "gain"))
    result = rank_association(rise, gain, [before], clusters, seed)
    reused = chosen_here((chosen_on or {}).get(names["mata"], ()), clusters)
    return DoseAssociation(
        subset=subset,
        n=result.n,
        n_clusters=len(set(clusters)),
        rho=result.rho,
        low=result.low,
        high=result.high,
        permuted_low=result.permuted_low,
        permuted_high=result.permuted_high,
        p=nan if reused or not isfinite(result.rho) else result.p,
        p_method=REFUSED if reused else "permutations of clips",
    )
