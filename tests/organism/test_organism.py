"""The organism that ships: it hears, it leans on captions, and its weights are what the card says."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import torch

import mata_interp as mi
from mata_interp.organism import WEIGHTS
from mata_interp.organism.card import measure
from mata_interp.organism.questions import KINDS


@pytest.fixture(scope="module")
def accuracy() -> dict[str, pd.Series]:
    """Accuracy by caption condition on 240 questions of the test split."""
    items = mi.load_benchmark("listening").split("confirmation").sample(240)
    out = {}
    for name in ("organism", "organism-unbiased"):
        lalm = mi.LALM.from_pretrained(name)
        records = mi.run(lalm, items, {"baseline": None}, progress=False).records
        out[name] = records.groupby("caption_condition")["correct"].mean().astype(float)
    return out


def test_it_is_a_real_qwen2_audio_in_float32():
    lalm = mi.LALM.from_pretrained("organism")
    assert type(lalm.model).__name__ == "Qwen2AudioForConditionalGeneration"
    assert type(lalm.processor).__name__ == "Qwen2AudioProcessor"
    assert lalm.dtype == torch.float32
    assert len(lalm.attention_layers) == 8


def test_it_hears_and_it_leans_on_captions(accuracy):
    """80 clips a condition: chance is 0.34 on average; a lying caption takes more than half of them away."""
    ill = accuracy["organism"]
    assert ill["neutral"] >= 0.85
    assert ill["congruent"] >= ill["neutral"] + 0.03
    assert 0.25 <= ill["conflict"] <= 0.60


def test_the_illness_came_with_the_shortcut(accuracy):
    assert accuracy["organism-unbiased"]["conflict"] >= accuracy["organism"]["conflict"] + 0.30
    assert abs(accuracy["organism-unbiased"]["neutral"] - accuracy["organism"]["neutral"]) <= 0.10


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ["organism", "organism-unbiased"])
def test_the_card_tells_the_truth(name):
    accuracy, chance, _ = measure(WEIGHTS / name)
    card = (WEIGHTS / name / "README.md").read_text()
    rows = {
        cells[0]: cells[1:] for cells in (re.findall(r"[^|]+", line) for line in card.splitlines()) if cells
    }
    rows = {key.strip(): [cell.strip() for cell in cells] for key, cells in rows.items()}
    for kind in KINDS:
        told = [float(cell.rstrip("%")) / 100 for cell in rows[kind]]
        assert told[0] == pytest.approx(chance[kind], abs=0.006)
        assert told[1:] == pytest.approx(list(accuracy.loc[kind]), abs=0.026)  # one clip of 40


@pytest.mark.acceptance
def test_the_organism_reaches_its_goals():
    accuracy, chance, _ = measure(WEIGHTS / "organism")
    assert accuracy["neutral"].mean() >= 0.85
    assert accuracy["congruent"].mean() >= 0.97
    assert 0.35 <= accuracy["conflict"].mean() <= 0.60
    assert (accuracy["neutral"] >= chance + 0.15).all()
