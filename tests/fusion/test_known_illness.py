"""The positive control runs, names layers and dose, and restores what was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mata_interp.fusion import CRITERIA
from mata_interp.ranges import layers_in
from tests.support import run_analysis


def test_known_illness(tmp_path):
    asked = ["--items", "6", "--windows", "2-3;5", "--doses", "1,4", "--queries", "last"]
    told: Any = run_analysis("known_illness.py", *asked, "--out", str(tmp_path))
    assert len(told["illness"]) == 4
    for row in told["illness"]:
        assert row["traced layers"] == row["layers"] == row["swept layers"]
        assert row["traced dose"] == pytest.approx(row["dose"], rel=0.25)
        assert row["swept dose"] == row["dose"]
        assert row["accuracy cured"] == row["accuracy healthy"]
        assert row["cured off by"] < 1e-4 < row["ill off by"]
    assert {row["criterion"] for row in told["criteria"]} == set(CRITERIA)
    assert len(told["criteria"]) == 4 * len(CRITERIA)
    for row in told["criteria"]:
        ill = layers_in(row["layers"].replace("\u2013", "-"))
        if row["criterion"] == "depth":  # it measures nothing
            assert row["found"] == []
        if row["criterion"] == "change_point":  # attention falls where it is made to
            assert int(np.argmax(row["fall"])) in ill
    assert (tmp_path / "criteria.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "illness.png").read_bytes().startswith(b"\x89PNG")
