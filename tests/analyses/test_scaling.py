"""The scaling analysis: its arithmetic, and that it runs."""

from __future__ import annotations

import pytest

from tests.support.analyses import run_analysis


def test_the_estimate_is_that_by_hand(tmp_path):
    result = run_analysis("scaling.py", "--paper", "--out", str(tmp_path))
    rows = {(row["answers"], row["method"], row["gpus"]): row for row in result["on_paper"]}
    assert len(rows) == 2 * 3 * 3
    several = "options of several tokens"
    loop, run, sweep = (rows[several, method, 8] for method in ("loop", "run", "sweep"))
    # a prefill, by hand: 2 x 7.7e9 x 870 + 2 x 0.64e9 x 1500 operations at 40 % of 312e12 a second
    prefill = (2 * 7.7e9 * 870 + 2 * 0.64e9 * 1500) / (0.4 * 312e12)
    # a configuration: the last token and 4 options are 5 passes, each of which reads the weights for 16 items
    # and an item's keys and values; or, side by side, 21 rows through 70 % of the layers at 30 % of the peak
    passes = 5 * (2 * 7.7e9 / 16 + 870 * 2 * 32 * 4096 * 2) / 1.4e12
    rows_of_one = 21 * 2 * 7.7e9 / (0.3 * 312e12)
    assert passes > rows_of_one
    by_hand = {
        "loop": 100 * (prefill + passes),
        "run": prefill + 100 * passes,
        "sweep": prefill + 70 * rows_of_one,
    }
    for method, row in zip(by_hand, (loop, run, sweep), strict=True):
        assert row["gpu_hours"] == pytest.approx(10_000 * by_hand[method] / 3600)
        # the busiest of 8 GPUs has 79 of the 625 batches; 120 s twice for the model, 0.04 s an item twice
        answering = 79 * 16 * (0.04 + by_hand[method])
        writing = 0.005 * (625 if method == "sweep" else 62_500)
        assert row["hours"] * 3600 == pytest.approx(240 + 400 + max(answering, writing))
    assert run["gpu_hours"] < loop["gpu_hours"] / 10
    assert sweep["gpu_hours"] < run["gpu_hours"]
    for row in rows.values():
        assert 0 < row["busy"] < 1
        assert row["hours"] * row["gpus"] > row["gpu_hours"]
    for method in ("loop", "run", "sweep"):
        hours = [rows[several, method, gpus]["hours"] for gpus in (8, 64, 512)]
        assert hours == sorted(hours, reverse=True)
    assert (tmp_path / "on_paper.csv").exists()
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.acceptance
def test_measured(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mata-interp[ray]'")
    small = ["--items", "24", "--workers", "1,2", "--batch-size", "2", "--rounds", "2"]
    result = run_analysis("scaling.py", *small, "--out", str(tmp_path))
    ways = ["one process", "1 on Ray", "2 on Ray"]
    assert [row["way"] for row in result["measured"]] == [*ways, "2 on Ray", "1 on Ray", "one process"]
    assert all(row["times"] == 1 for row in result["measured"] if row["workers"] == 0)
    assert all(row["alike"] for row in result["measured"])
    assert all(row["items_per_second"] > 0 for row in result["measured"])
