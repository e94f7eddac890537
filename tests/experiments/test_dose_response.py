"""Dose and response of a study: the curve over alphas, its test, and the association of dose and gain."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import spearmanr

from mata_interp.experiments import Effects
from mata_interp.experiments.dose_response import (
    FIXED,
    INCOMPLETE,
    REPEATED,
    dose_association,
    dose_response,
)
from mata_interp.interventions import Mata
from mata_interp.statistics import rank_association, selected_trend, simultaneous_band, trend_test
from mata_interp.statistics.choices import REFUSED

ALPHAS = (0.5, 1.0, 2.0)
WINDOWS = ((0,), (1,), (0, 1))
GRID = {f"{layers}@{alpha}": Mata(alpha, layers) for layers in WINDOWS for alpha in ALPHAS}
ROLES = {"baseline": "baseline", "mata": "mata"}


def swept(names: list[str], missing: int = 0, items: int = 24) -> xr.DataArray:
    """Margins of two options: noise, and with layer 1 a rise of 0.4 nats with each alpha.

    The first ``missing`` items lack the last configuration.
    """
    rng = np.random.default_rng(0)
    rises = [0.4 * (ALPHAS.index(GRID[name].alpha) + 1) * (GRID[name].layers == (1,)) for name in names]
    margins = (
        rng.normal(size=(items, 1)) + np.c_[np.zeros(items), rng.normal(rises, 0.5, (items, len(names)))]
    )
    margins[:missing, -1] = np.nan
    values = np.stack([margins, np.where(np.isnan(margins), np.nan, 0.0)], -1)
    coords = {
        "item": [f"item {n}" for n in range(items)],
        "configuration": ["none", *names],
        "answer": ("item", [0] * items),
        "cluster": ("item", [f"clip {n // 2:02d}" for n in range(items)]),
    }
    return xr.DataArray(values, coords, ("item", "configuration", "choice"))


def changes_of(sweep: xr.DataArray, names: list[str]) -> np.ndarray:
    margins = sweep.isel(choice=0) - sweep.isel(choice=1)
    return (margins.sel(configuration=names) - margins.sel(configuration="none")).values


def test_the_curve_has_a_band_and_a_test_that_repeats_the_choice():
    sweep = swept(list(GRID))
    result = dose_response(sweep, GRID, [1], "none", seed=3)
    assert result is not None
    change, clips = changes_of(sweep, [f"(1,)@{alpha}" for alpha in ALPHAS]), sweep["cluster"].values
    band = simultaneous_band(change, clips, seed=3)
    for n, point in enumerate(result.points):
        assert point.alpha == ALPHAS[n]
        assert (point.change, point.low, point.high) == pytest.approx(
            (band.mean[n], band.low[n], band.high[n])
        )
    every = changes_of(sweep, list(GRID)).reshape(24, 3, 3)
    reference = selected_trend(every, clips, seed=3)
    assert (result.slope, result.p) == (pytest.approx(reference.slope), reference.p)
    assert reference.chosen == 1
    assert result.p_method == REPEATED
    assert (result.n, result.n_clusters, result.layers) == (24, 12, (1,))


def test_layers_that_were_fixed_beforehand_have_the_plain_test():
    names = [name for name in GRID if GRID[name].layers == (1,)]
    sweep = swept(names)
    result = dose_response(sweep, {name: GRID[name] for name in names}, [1], "none")
    assert result is not None
    change = np.c_[np.zeros(24), changes_of(sweep, names)]
    assert (result.slope, result.p) == trend_test(change, sweep["cluster"].values)
    assert result.p_method == FIXED


def test_what_cannot_be_tested_has_no_p_value():
    left_out = [name for name in GRID if name != "(0, 1)@2.0"]
    for sweep in (swept(list(GRID), missing=5), swept(left_out)):
        result = dose_response(sweep, GRID, [1], "none")
        assert result is not None
        assert (isnan(result.p), result.p_method) == (True, INCOMPLETE)
        assert result.n == 24
    chosen = {name: replace(edit, chosen_on=("clip 03",)) for name, edit in GRID.items()}
    result = dose_response(swept(list(GRID)), chosen, [1], "none")
    assert result is not None
    assert (isnan(result.p), result.p_method) == (True, REFUSED)


def test_one_alpha_or_three_items_have_no_curve():
    assert dose_response(swept(["(1,)@0.5", "(0,)@0.5"]), GRID, [1], "none") is None
    assert dose_response(swept(list(GRID), items=3), GRID, [1], "none") is None


def records(n: int = 40) -> pd.DataFrame:
    """Conflict items that gain by how much their audio mass rises, and neutral ones that do not."""
    rng = np.random.default_rng(0)
    rows = []
    for caption in ("conflict", "neutral"):
        rise, before = rng.uniform(0, 0.3, n), rng.normal(size=n)
        gain = (5 * rise if caption == "conflict" else 0) + rng.normal(0, 0.5, n)
        for i in range(n):
            about = {"item": f"{caption} {i}", "cluster": f"{i // 2:02d}", "caption_condition": caption}
            rows.append({**about, "condition": "baseline", "margin": before[i], "rise": rise[i]})
            mata = {"margin": before[i] + gain[i], "dose_mass_before": 0.2, "dose_mass_after": 0.2 + rise[i]}
            rows.append({**about, "condition": "mata", **mata})
    return pd.DataFrame(rows)


def test_the_association_is_on_the_items_of_the_primary_comparison():
    table = records()
    result = dose_association(table, ROLES, seed=2)
    assert result is not None
    part = table.loc[table["caption_condition"] == "conflict"]
    sides = [part.loc[part["condition"] == name].set_index("item").sort_index() for name in ROLES]
    rise = (sides[1]["dose_mass_after"] - sides[1]["dose_mass_before"]).to_numpy()
    before, after = (side["margin"].to_numpy() for side in sides)
    reference = rank_association(rise, after - before, [before], sides[1]["cluster"].tolist(), seed=2)
    assert (result.rho, result.low, result.high, result.p) == pytest.approx(
        (reference.rho, reference.low, reference.high, reference.p)
    )
    assert (result.permuted_low, result.permuted_high) == (reference.permuted_low, reference.permuted_high)
    assert (result.n, result.n_clusters) == (40, 20)
    assert result.subset == {"caption_condition": "conflict"}
    assert result.rho == pytest.approx(spearmanr(rise, after - before).statistic, abs=0.1)
    assert result.p < 0.01


def test_an_association_on_clips_of_the_choice_has_no_p_value():
    refused = dose_association(records(), ROLES, {"mata": ["07"]})
    tested = dose_association(records(), ROLES, {"mata": ["another"]})
    assert refused is not None
    assert tested is not None
    assert (isnan(refused.p), refused.p_method) == (True, REFUSED)
    assert (refused.rho, refused.low) == (tested.rho, tested.low)
    assert tested.p < 0.01


def test_without_margins_or_doses_there_is_no_association():
    table = records()
    assert dose_association(table.assign(margin=np.nan), ROLES) is None
    assert dose_association(table.drop(columns="dose_mass_after"), ROLES) is None
    assert dose_association(table.loc[table["condition"] == "mata"], {"mata": "mata"}) is None
    constant = dose_association(table.assign(dose_mass_after=0.5, dose_mass_before=0.1), ROLES)
    assert constant is not None
    assert isnan(constant.rho)
    assert isnan(constant.p)


def test_both_survive_a_file():
    curve, association = (
        dose_response(swept(list(GRID)), GRID, [1], "none"),
        dose_association(records(), ROLES),
    )
    effects = Effects(dose_response=curve, association=association)
    assert Effects.from_dict(effects.to_dict()) == effects
    assert Effects.from_dict({"effects": [], "no_harm": []}) == Effects()
