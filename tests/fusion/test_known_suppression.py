"""The positive control runs, finds layers and dose, and its inverse edit restores the intact model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mata_interp.fusion import CRITERIA
from mata_interp.ranges import layers_in
from tests.support.analyses import run_analysis


@pytest.mark.acceptance
def test_known_suppression(tmp_path):
    options = ["--items", "6", "--windows", "2-3;5", "--doses", "1,4", "--queries", "last"]
    tables: Any = run_analysis("known_suppression.py", *options, "--out", str(tmp_path))
    assert len(tables["suppression"]) == 4
    for row in tables["suppression"]:
        assert row["traced layers"] == row["layers"] == row["swept layers"]
        assert row["traced dose"] == pytest.approx(row["dose"], rel=0.25)
        assert row["swept dose"] == row["dose"]
        assert row["accuracy restored"] == row["accuracy intact"]
        assert row["restored difference"] < 1e-4 < row["suppressed distance"]
    assert {row["criterion"] for row in tables["criteria"]} == set(CRITERIA)
    assert len(tables["criteria"]) == 4 * len(CRITERIA)
    for row in tables["criteria"]:
        suppressed = layers_in(row["layers"].replace("\u2013", "-"))
        if row["criterion"] == "depth":  # it measures nothing
            assert row["window"] == []
        if row["criterion"] == "change_point":  # attention falls where it is suppressed
            assert int(np.argmax(row["fall"])) in suppressed
    assert (tmp_path / "criteria.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "suppression.png").read_bytes().startswith(b"\x89PNG")
