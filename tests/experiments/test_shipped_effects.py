"""The study of the shipped model on the shipped benchmark has the numbers kept in ``shipped_effects.json``.

A change of method that moves them on purpose updates the file and lists old and new numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mata_interp as mi
from mata_interp.experiments import Effects

KEPT = json.loads(Path(__file__).with_name("shipped_effects.json").read_text())
EXACT = ("n", "n_clusters", "fixed", "broken", "kind", "family", "interval_method", "p_method")
CLOSE = (
    "before",
    "after",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "p_mcnemar_exact",
    "p_mcnemar_mid",
    "p_permutation",
)
BOOTSTRAP = ("bootstrap_low", "bootstrap_high")  # equal up to Monte-Carlo error


def key(row: dict) -> tuple[str, str, str]:
    return row["name"], row["column"], json.dumps(row["subset"], sort_keys=True)


def differences(effects: Effects) -> list[str]:
    """What differs from the kept numbers, in words."""
    measured = {key(row): row for row in effects.to_dict()["effects"]}
    stored = {key(row): row for row in KEPT}
    wrong = [f"only in one of both: {name}" for name in measured.keys() ^ stored.keys()]
    for name in measured.keys() & stored.keys():
        for field in (*EXACT, *CLOSE, *BOOTSTRAP):
            new, old = measured[name][field], stored[name][field]
            tolerance = 0.0 if field in EXACT else 1e-6
            if field in BOOTSTRAP and old is not None:
                tolerance = 0.1 * (stored[name]["bootstrap_high"] - stored[name]["bootstrap_low"])
            same = new == old if isinstance(old, str) or None in (new, old) else abs(new - old) <= tolerance
            if not same:
                wrong.append(f"{name}: {field} is {new}, was {old}")
    return wrong


def test_the_kept_numbers_are_those_of_one_study():
    assert [row["family"] for row in KEPT].count("primary") == 1
    assert len({key(row) for row in KEPT}) == len(KEPT)
    primary = next(row for row in KEPT if row["family"] == "primary")
    assert primary["difference"] == pytest.approx((primary["fixed"] - primary["broken"]) / primary["n"])


@pytest.mark.acceptance
def test_the_study_of_the_shipped_model_keeps_its_numbers(tmp_path):
    lalm, items = mi.LALM.from_pretrained("organism"), mi.load_benchmark("listening")
    run = mi.study(lalm, items, tmp_path / "study", progress=False)
    assert run.effects is not None
    assert differences(run.effects) == []
