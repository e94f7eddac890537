"""The organism that ships: its encoder is accurate, its answers over-rely on captions, its card is right."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import torch

from mata_interp.benchmarks import load_benchmark
from mata_interp.experiments import run
from mata_interp.lalm import LALM
from mata_interp.organism import WEIGHTS
from mata_interp.organism.card import measure
from mata_interp.organism.questions import KINDS


@pytest.fixture(scope="module")
def accuracy() -> dict[str, pd.Series]:
    """Accuracy by caption condition on 240 questions of the confirmation split."""
    items = load_benchmark("listening").split("confirmation").sample(240)
    out = {}
    for name in ("organism", "organism-unbiased"):
        lalm = LALM.from_pretrained(name)
        records = run(lalm, items, {"baseline": None}, progress=False).records
        out[name] = records.groupby("caption_condition")["correct"].mean().astype(float)
    return out


def test_it_is_a_real_qwen2_audio_in_float32():
    lalm = LALM.from_pretrained("organism")
    assert type(lalm.model).__name__ == "Qwen2AudioForConditionalGeneration"
    assert type(lalm.processor).__name__ == "Qwen2AudioProcessor"
    assert lalm.dtype == torch.float32
    assert len(lalm.attention_layers) == 8


def test_it_answers_from_audio_without_a_caption_and_from_the_caption_otherwise(accuracy):
    """80 clips for each condition; chance is 0.34 on average."""
    organism = accuracy["organism"]
    assert organism["neutral"] >= 0.85
    assert organism["congruent"] >= organism["neutral"] + 0.03
    assert 0.25 <= organism["conflict"] <= 0.60


def test_the_shortcut_phase_caused_the_reliance_on_captions(accuracy):
    assert accuracy["organism-unbiased"]["conflict"] >= accuracy["organism"]["conflict"] + 0.30
    assert abs(accuracy["organism-unbiased"]["neutral"] - accuracy["organism"]["neutral"]) <= 0.10


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ["organism", "organism-unbiased"])
def test_the_card_agrees_with_a_new_measurement(name):
    measured = measure(WEIGHTS / name)
    card = (WEIGHTS / name / "README.md").read_text()
    rows = {
        cells[0]: cells[1:] for cells in (re.findall(r"[^|]+", line) for line in card.splitlines()) if cells
    }
    rows = {key.strip(): [cell.strip() for cell in cells] for key, cells in rows.items()}
    for kind in KINDS:
        stated = [float(cell.rstrip("%")) / 100 for cell in rows[kind]]
        assert stated[0] == pytest.approx(measured.chance[kind], abs=0.006)
        assert stated[1:] == pytest.approx(list(measured.accuracy.loc[kind]), abs=0.026)  # one clip of 40


@pytest.mark.acceptance
def test_the_organism_reaches_its_goals():
    measured = measure(WEIGHTS / "organism")
    accuracy, chance = measured.accuracy, measured.chance
    assert accuracy["neutral"].mean() >= 0.85
    assert accuracy["congruent"].mean() >= 0.97
    assert 0.35 <= accuracy["conflict"].mean() <= 0.60
    assert (accuracy["neutral"] >= chance + 0.15).all()
