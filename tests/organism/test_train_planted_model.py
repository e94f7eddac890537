"""Trained planted models read audio in the planted layers, as a plain loop of layer-wise masking shows.

One is trained by ``window`` in full, 500 steps, and one by ``penalty`` for a fifth of the steps, which is
enough to see the effect. Two to six minutes each on one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mata_interp.benchmarks import load_benchmark
from mata_interp.lalm import LALM
from mata_interp.organism.planted_model import PlantedModelSpec, build_planted_model, train_planted_model
from tests.support.analyses import import_analysis

ITEMS = 60

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def truth() -> Any:
    return import_analysis("support.blindness")


@pytest.fixture(scope="module")
def items() -> Any:
    neutral = load_benchmark("listening").filter(condition="neutral")
    return neutral.split("confirmation", seed=0).sample(ITEMS, seed=0)


def trained(spec: PlantedModelSpec, share: float, folder: Path) -> LALM:
    train_planted_model(spec, folder / "work", folder / "model", 0, share)
    return LALM.from_pretrained(folder / "model")


def audio_effect(lalm: LALM, items: Any) -> float:
    """Largest change of the logits of the first answer token when the clip is replaced by one as long."""
    rate = lalm.sampling_rate
    samples, other = (item.load_audio(rate).samples for item in items[:2])
    swapped = items[0].with_audio((np.resize(other, len(samples)), rate))
    before, after = (lalm.logits(lalm.prompt(item)) for item in (items[0], swapped))
    return float((before - after).abs().max())


def test_a_model_planted_by_window_reads_in_its_layers_only(truth, items, tmp_path):
    lalm = trained(PlantedModelSpec((3, 4), "window"), 1.0, tmp_path)
    assert audio_effect(lalm, items) > 0.01
    result = truth.blindness(lalm, items)
    assert result.layers == (3, 4)
    assert np.abs(np.delete(result.cost, [3, 4])).max() < 0.02
    assert result.accuracy[0] > 0.45  # chance is a third
    closed = LALM(build_planted_model(lalm.model, PlantedModelSpec((), "window")), lalm.processor)
    assert audio_effect(closed, items) == 0.0  # the same weights, and no layer that reaches the audio


def test_a_model_planted_by_penalty_reads_in_its_layer_only(truth, items, tmp_path):
    lalm = trained(PlantedModelSpec((4,)), 0.2, tmp_path)
    text = lalm.model.config.text_config
    assert set(text.layer_types) == {"full_attention"}  # the masks do not show the layer
    result = truth.blindness(lalm, items)
    assert result.layers == (4,)
    assert result.cost[4] > 0.4
    assert result.accuracy[0] > 0.8
