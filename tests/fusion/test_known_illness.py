"""The positive control runs, names layers and dose, and restores what was."""

from __future__ import annotations

import pytest

from tests.analyses.test_analyses import analysis


def test_known_illness(tmp_path):
    asked = ["--items", "3", "--windows", "2-3;5", "--doses", "1,4", "--queries", "last"]
    rows = analysis("known_illness.py", *asked, "--out", str(tmp_path))
    assert len(rows) == 4
    for row in rows:
        assert row["traced layers"] == row["layers"] == row["swept layers"]
        assert row["traced dose"] == pytest.approx(row["dose"], rel=0.25)
        assert row["swept dose"] == row["dose"]
        assert row["accuracy cured"] == row["accuracy healthy"]
        assert row["cured off by"] < 1e-4 < row["ill off by"]
    assert (tmp_path / "illness.png").read_bytes().startswith(b"\x89PNG")
