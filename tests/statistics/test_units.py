"""Clusters: gathering, and the cluster-robust standard error against its definition and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.linalg import sqrtm
from scipy.stats import ttest_1samp

from mata_interp.statistics.units import Units


def clustered_values(seed: int, clusters: int = 25) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(clusters), rng.integers(1, 6, clusters))
    return 0.3 + rng.normal(size=clusters)[labels] + rng.normal(size=len(labels)), labels


def bell_and_mccaffrey(values: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """CR2 standard error and degrees of freedom of a mean by their definition, with whole matrices."""
    n = len(values)
    design = np.ones((n, 1))
    residual_maker = np.eye(n) - design @ design.T / n  # I - H
    rows = []  # the standard error squared is the sum of squares of rows @ values
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        block = residual_maker[np.ix_(inside, inside)]
        root = np.linalg.inv(np.real(sqrtm(block)))  # (I - H_gg)^(-1/2)
        rows.append(design[inside, 0] @ root @ residual_maker[inside] / n)
    gram = np.array(rows) @ np.array(rows).T
    error = float(np.sqrt(np.sum((np.array(rows) @ values) ** 2)))
    return error, float(np.trace(gram) ** 2 / np.sum(gram**2))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("clusters", [2, 5, 25])
def test_clusters_of_unequal_size_by_the_definition(seed, clusters):
    values, labels = clustered_values(seed, clusters)
    units = Units.gather(values, labels)
    error, freedom = bell_and_mccaffrey(values, labels)
    assert units.standard_error() == pytest.approx(error)
    assert units.freedom() == pytest.approx(freedom)
    assert 1 - 1e-9 <= units.freedom() <= clusters - 1 + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_clusters_of_one_size_are_those_of_a_regression_on_a_constant(seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(12), 4)
    values = rng.normal(size=12)[labels] + rng.normal(size=48)
    fit = sm.OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": labels, "df_correction": True}, use_t=True
    )
    units = Units.gather(values, labels)
    assert units.mean == pytest.approx(fit.params[0])
    assert units.freedom() == pytest.approx(11)
    # statsmodels' correction is G / (G - 1) x (n - 1) / (n - 1) for a regression on a constant
    assert units.standard_error() == pytest.approx(fit.bse[0])
    assert units.t_interval(0.9) == pytest.approx(fit.conf_int(0.1)[0])


def test_single_items_give_students_interval():
    values = clustered_values(0)[0]
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert Units.gather(values, None).t_interval(0.95) == pytest.approx(tuple(expected))


def test_neither_order_nor_labels_matter():
    values, labels = clustered_values(1)
    units = Units.gather(values, labels)
    order = np.random.default_rng(5).permutation(len(values))
    again = Units.gather(values[order], [f"clip {label}" for label in labels[order]])
    np.testing.assert_array_equal(again.sums, units.sums)
    np.testing.assert_array_equal(again.sizes, units.sizes)


@pytest.mark.parametrize(
    ("values", "labels", "alike"),
    [
        ([], None, True),
        ([3.0], None, True),
        ([0.1, 0.1, 0.1], None, True),
        ([0.1, 0.2], None, False),
        ([1.0, 0.0, 0.0, 1.0], "aabb", True),
        ([1.0, 0.0, 1.0, 1.0], "aabb", False),
    ],
)
def test_alike(values, labels, alike):
    assert Units.gather(np.array(values, dtype=float), labels).alike is alike
