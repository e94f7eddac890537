"""The analyses run on the model and benchmark that ship, and write their results."""

from __future__ import annotations

import pytest

from tests.support.analyses import run_analysis


def test_attention_imbalance(tmp_path):
    rows = run_analysis("attention_imbalance.py", "--items", "12", "--out", str(tmp_path))
    assert {row["model"] for row in rows} == {"organism", "organism-unbiased"}
    assert {row["condition"] for row in rows} == {"neutral", "congruent", "conflict"}
    assert len(rows) == 2 * 3 * 8
    for row in rows:
        assert 0 <= row["low"] <= row["audio_share"] <= row["high"] <= 1
        assert 0 < row["audio_share"] < 1
        assert row["mdi"] > 0
        assert row["clips"] == 4
    assert (tmp_path / "imbalance.csv").exists()
    assert (tmp_path / "imbalance.png").read_bytes().startswith(b"\x89PNG")


def test_causal_effect(tmp_path):
    rows = run_analysis("causal_effect.py", "--items", "24", "--alphas=-1,2", "--out", str(tmp_path))
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["p"] <= row["p_holm"] <= 1
        assert row["fixed"] - row["broken"] == pytest.approx(row["n"] * row["difference"], abs=1e-6)
        assert row["dose_kl"] > 0
    assert (tmp_path / "effect_by_dose.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "parts").glob("*.parquet"))) >= 5
