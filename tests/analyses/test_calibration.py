"""The calibration: fast forms equal the package's, a small one runs and resumes, the shipped one is whole."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import bootstrap

from mata_interp.statistics import (
    crossfit_effect,
    max_t,
    proportion,
    romano_wolf,
    simultaneous_band,
    stratified_effect,
    text_dominance,
    text_prior,
)
from mata_interp.statistics.resampling import bootstrap_interval, sign_flip
from mata_interp.statistics.simultaneous import mean_and_error
from mata_interp.statistics.units import Units
from tests.support.analyses import ROOT, import_analysis, run_analysis

SHIPPED = ROOT / "analyses" / "calibration.json"

SIZES = np.array([3, 1, 4, 2, 2, 5, 1, 3])

bootstraps = import_analysis("support.calibration.bootstraps")
worlds = import_analysis("support.calibration.worlds")
rows = import_analysis("support.calibration.rows")
families = import_analysis("support.calibration.families")
procedures = import_analysis("support.calibration.procedures")
remaining = import_analysis("support.calibration.remaining")
rates = import_analysis("support.calibration.rates")
cells = import_analysis("support.calibration.cells")


def run_cell(name: str, replicates: int) -> dict[tuple[str, str], float]:
    cell = next(cell for cell in cells.CELLS if cell.name == name)
    measured = replace(cell, limit=None).run(replicates, np.random.default_rng(1))
    return {(row.procedure, row.quantity): row.rate for row in measured}


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 24)
    return rng.exponential(size=(3, 24)) * sizes, sizes


def test_the_fast_intervals_are_those_of_the_package_and_of_scipy(clips):
    sums, sizes = clips
    low, high = bootstraps.t_interval(sums, sizes)
    measured = bootstraps.bootstrap_intervals(sums, sizes, 20_000, np.random.default_rng(0))
    for r in range(3):
        order = np.lexsort((sizes, sums[r]))
        units = Units(sums[r][order], sizes[order])
        assert (low[r], high[r]) == pytest.approx(units.t_interval(0.95), abs=1e-12)
        mean, error = mean_and_error(np.ones((1, 24)), sums[r][:, None], sizes.astype(float))
        here = [value[r] for value in bootstraps.mean_and_plain_se(sums, sizes)]
        assert here == pytest.approx([mean.item(), error.item()])
        here = [value[r] for value in bootstraps.mean_and_se(sums, sizes)]
        assert here == pytest.approx([units.mean, units.standard_error()])
        low_t, high_t = bootstrap_interval(units, 0.95, seed=0)
        fast = [end[r] for end in measured["symmetric bootstrap-t"]]
        assert fast == pytest.approx([low_t, high_t], abs=0.03 * (high_t - low_t))
        for name, method in (("BCa", "BCa"), ("percentile", "percentile")):
            reference = bootstrap(
                (sums[r], sizes),
                lambda x, n, axis: x.sum(axis) / n.sum(axis),
                paired=True,
                vectorized=True,
                n_resamples=20_000,
                method=method,
                rng=np.random.default_rng(1),
            ).confidence_interval
            width = reference.high - reference.low
            assert measured[name][0][r] == pytest.approx(reference.low, abs=0.03 * width)
            assert measured[name][1][r] == pytest.approx(reference.high, abs=0.03 * width)


def test_the_fast_sign_flips_are_those_of_the_package(clips):
    centred = clips[0] - np.median(clips[0])
    p = bootstraps.sign_flip_p(centred, 20_000, np.random.default_rng(0))
    for r in range(3):
        assert p[r] == pytest.approx(sign_flip(centred[r], 0)[0], abs=0.012)


def test_exact_sign_flips_are_those_of_the_package():
    sums = np.random.default_rng(3).normal(size=(5, 9))
    p = bootstraps.exact_flip_p(sums)
    for r in range(5):
        assert p[r] == pytest.approx(sign_flip(sums[r], 0)[0], abs=1e-12)


# ---------------------------------------------------------------- many data sets at once equal each alone
@pytest.fixture(scope="module")
def data_sets():
    """Four data sets of six configurations, of which the first changes something."""
    changes = worlds.correlated("skewed", SIZES, 6, 4, np.random.default_rng(5))
    changes[..., 0] += 0.5
    return changes, worlds.clip_sums(changes, SIZES), worlds.clip_labels(SIZES)


@pytest.mark.parametrize("clips", [8, 16])
def test_families_of_tests_at_once(data_sets, clips):
    """With 8 clips max-T counts all patterns of signs, with 16 it draws them."""
    changes, sums, _ = data_sets
    sizes = np.tile(SIZES, clips // 8)
    changes = np.concatenate([changes, -0.7 * changes], 1)[:, : sizes.sum()]
    sums, labels = worlds.clip_sums(changes, sizes), worlds.clip_labels(sizes)
    of_signs, of_resamples = families.max_t_p(sums, sizes, 7), families.romano_wolf_p(sums, sizes, 7)
    for r in range(4):
        np.testing.assert_allclose(of_signs[r], max_t(changes[r], labels, families.DRAWS, 7).p)
        np.testing.assert_allclose(of_resamples[r], romano_wolf(changes[r], labels, families.DRAWS, 7).p)


def test_bands_at_once(data_sets):
    changes, sums, labels = data_sets
    low, high, lowest = families.band_ends(sums, SIZES, 3)
    for r in range(4):
        band = simultaneous_band(changes[r], labels, draws=families.DRAWS, seed=3)
        np.testing.assert_allclose([low[r], high[r]], [band.low, band.high])
        np.testing.assert_allclose(lowest[r], band.mean - band.critical_one_sided * band.se)


def test_cross_fitting_at_once(data_sets):
    changes, _, labels = data_sets
    fit = procedures.fitted(changes, np.sign(changes), SIZES, 2)
    for r in range(4):
        alone = crossfit_effect(changes[r], np.sign(changes[r]), labels, draws=procedures.DRAWS, seed=2)
        assert alone.chosen == tuple(fit.chosen[r])
        assert (alone.difference, alone.p) == pytest.approx((fit.difference[r], fit.p[r]))
        assert alone.high - alone.difference == pytest.approx(fit.radius[r])


def test_strata_at_once():
    rng = np.random.default_rng(0)
    sizes = (9, 14, 30)
    changed = rng.binomial(sizes, 0.2, (30, 3))
    fixed = rng.binomial(changed, 0.6)
    low, high, p = remaining.strata_results(fixed, changed - fixed, np.array(sizes, float))
    for r in range(30):
        alone = stratified_effect(*remaining._items(fixed[r], changed[r] - fixed[r], sizes))
        assert (low[r], high[r]) == pytest.approx((alone.low, alone.high))
        assert p[r] == pytest.approx(alone.q_p, nan_ok=True)


def test_rates_at_once():
    answers = rates.Answers.draw(SIZES, 30, 0.8, 0.3, 0.3, np.random.default_rng(0))
    ends, labels = answers.intervals(), worlds.clip_labels(SIZES)
    for r in range(30):
        reference = {
            "proportion": proportion(answers.right[r], labels),
            "text_dominance": text_dominance(answers.text[r], answers.audio[r], labels),
            "text_prior": text_prior(answers.blind[r], answers.right[r], labels),
        }
        for name, rate in reference.items():
            assert (ends[name][0][r], ends[name][1][r]) == pytest.approx((rate.low, rate.high), abs=1e-9)


def test_a_small_calibration_of_rates():
    measured = run_cell("rates 20 clips of 2-20", 2000)
    for name in ("proportion (Wilson", "text_dominance (Wilson", "text_prior (score of a ratio"):
        assert 0.93 < measured[f"{name}, clustered)", "coverage"] < 0.97
    assert measured["percentile bootstrap of a rate", "coverage"] < 0.925  # why it is not used


def test_a_small_calibration_of_strata():
    measured = run_cell("strata 30 items, discordance 0.2825", 4000)
    assert measured["stratified_effect, heterogeneity", "type I error"] < 0.05 + 0.009
    assert 0.935 < measured["stratified_effect, combined", "coverage"] < 0.965


def test_worlds_have_the_rates_that_they_say():
    rng = np.random.default_rng(0)
    sizes = worlds.clip_sizes(30, (2, 4), rng)
    fixed, broken = worlds.AnswerWorld(30, (2, 4), 0.2, 0.05, 0.5).draw(sizes, 2000, rng)
    assert fixed.shape == (2000, 30)
    assert fixed.sum() / (2000 * sizes.sum()) == pytest.approx(0.2, abs=0.01)
    assert broken.sum() / (2000 * sizes.sum()) == pytest.approx(0.05, abs=0.005)
    assert np.corrcoef(fixed[:, 0] / sizes[0], broken[:, 0] / sizes[0])[0, 1] < 0
    correlated = worlds.correlated("normal", sizes, 3, 2000, rng)
    assert np.corrcoef(correlated[:, 0, 0], correlated[:, 0, 1])[0, 1] == pytest.approx(0.9, abs=0.02)
    assert np.corrcoef(correlated[:, 0, 0], correlated[:, 1, 0])[0, 1] == pytest.approx(0.3, abs=0.07)
    for shape in worlds.SHAPES:
        values = worlds.MarginWorld(30, (1, 1), shape).draw(np.ones(30, int), 4000, rng)
        assert values.mean() == pytest.approx(0, abs=0.02)
        assert values.std() == pytest.approx(1, abs=0.03)


def test_verdicts_allow_for_the_monte_carlo_error():
    def verdict(quantity: str, rate: float, replicates: int = 10_000) -> str:
        happened = np.arange(replicates) < rate * replicates
        return rows.row("cell", "test", quantity, happened).verdict

    assert verdict("type I error", 0.04) == verdict("type I error", 0.054) == "met"
    assert verdict("type I error", 0.06) == "missed"
    assert verdict("type I error", 0.06, 100) == "met"
    assert verdict("coverage", 0.95) == verdict("coverage", 0.931) == "met"
    assert verdict("coverage", 0.92) == "missed"
    assert verdict("coverage", 0.99) == "conservative"
    assert verdict("power", 0.3) == ""


def test_the_names_of_cells_differ():
    names = [cell.name for cell in cells.CELLS]
    assert len(set(names)) == len(names)


def test_a_small_calibration_of_answers():
    """Every run compares the fast forms with `paired_effect` and `no_harm` on its first replicates."""
    measured = run_cell("answers 400 items, conflict, no effect", 2000)
    assert measured["McNemar exact", "type I error"] <= 0.05 + 0.013
    assert 0.03 < measured["McNemar mid-p (paired_effect)", "type I error"] <= 0.05 + 0.013
    assert 0.93 < measured["Tango (paired_effect)", "coverage"] < 0.97
    measured = run_cell("answers 50 clips of 2-4, discordance 0.2825, no effect", 1000)
    assert measured["sign flips of clips (paired_effect)", "type I error"] <= 0.05 + 0.018
    assert measured["McNemar mid-p", "type I error"] > 0.07  # what ignoring the clips costs
    assert measured["Tango", "coverage"] < 0.93


@pytest.mark.acceptance
def test_a_small_calibration_of_margins():
    measured = run_cell("margins 50 items, normal", 1000)
    assert 0.03 < measured["sign flips (paired_effect)", "type I error"] < 0.07
    assert 0.93 < measured["t interval (paired_effect)", "coverage"] < 0.97
    measured = run_cell("margins 12 items, skewed", 1000)
    assert measured["BCa", "coverage"] < 0.93  # why it is not used


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ["sweep 50 clips, normal", "sweep 50 clips, answers"])
def test_a_small_calibration_of_sweeps(name):
    measured = run_cell(name, 200)
    for procedure in ("max_t (drawn signs)", "holm of sign flips"):
        assert measured[procedure, "family-wise error"] <= 0.05 + 0.04


@pytest.mark.acceptance
def test_a_small_calibration_of_studies():
    measured = run_cell("study 100 clips, no effect", 60)
    assert measured["primary test of a study", "type I error"] < 0.15
    assert measured["choose and test on the same items (refused by the package)", "type I error"] > 0.2


def test_the_analysis_resumes(tmp_path):
    command = ("--replicates", "50", "--only", "wilson 240", "--out", str(tmp_path))
    first = run_analysis("calibration.py", *command)
    assert [row["replicates"] for row in first["rows"]] == [50] * 3
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "wilson_interval" in (tmp_path / "calibration.md").read_text()
    parts = sorted((tmp_path / "cells").glob("*.json"))
    assert len(parts) == 3
    stored = json.loads(parts[0].read_text())
    parts[0].write_text(json.dumps({**stored, "seconds": 4321}))
    parts[1].unlink()
    again = run_analysis("calibration.py", *command)
    assert again["rows"] == first["rows"]
    assert again["seconds"] >= 4321
    # of a result, only what differs is simulated again
    result = json.loads((tmp_path / "calibration.json").read_text())
    changed = next(cell for cell in result["cells"] if cell["name"] == "wilson 240 items, 0.98")
    changed["settings"]["rate"] = 0.5
    marked = next(row for row in result["rows"] if row["cell"] == "wilson 240 items, 0.771")
    marked["rate"] = 0.123
    (tmp_path / "kept.json").write_text(json.dumps(result))
    more = ("--keep", str(tmp_path / "kept.json"), "--out", str(tmp_path / "other"))
    kept = {row["cell"]: row["rate"] for row in run_analysis("calibration.py", *command[:4], *more)["rows"]}
    assert kept.pop("wilson 240 items, 0.771") == 0.123
    assert kept == {row["cell"]: row["rate"] for row in first["rows"] if row["cell"] in kept}


@pytest.mark.skipif(not SHIPPED.exists(), reason="the calibration has not been run")
def test_the_shipped_calibration_is_of_these_cells():
    shipped = json.loads(SHIPPED.read_text())
    shipped_cells = {cell["name"]: cell for cell in shipped["cells"]}
    assert set(shipped_cells) == {cell.name for cell in cells.CELLS}
    for cell in cells.CELLS:
        assert json.loads(json.dumps(cell.settings)) == shipped_cells[cell.name]["settings"]
    table = (ROOT / "analyses" / "calibration.md").read_text()
    assert all(row["procedure"] in table for row in shipped["rows"])
