"""Plants, trained: text reads the sound where it was planted, as blindness in a plain loop tells.

One by window in full, 500 steps, and one by penalty for as long as it takes to see it, 100. Two to six
minutes on one core each time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.organism.planting import Plant, plant, rear_plant
from tests.analyses.test_analyses import imported

ITEMS = 60

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def truth() -> Any:
    return imported("support.blindness")


@pytest.fixture(scope="module")
def items() -> Any:
    neutral = mi.load_benchmark("listening").filter(condition="neutral")
    return neutral.split("confirmation", seed=0).sample(ITEMS, seed=0)


def reared(spec: Plant, share: float, folder: Path) -> mi.LALM:
    rear_plant(spec, folder / "work", folder / "model", 0, share)
    return mi.LALM.from_pretrained(folder / "model")


def moved(lalm: mi.LALM, items: Any) -> float:
    """By how much another clip of the same length moves the logits of the first answer token."""
    rate = lalm.sampling_rate
    own, other = (one.load_audio(rate).samples for one in items[:2])
    swapped = items[0].with_audio((np.resize(other, len(own)), rate))
    logits = [lalm.logits(lalm.prompt(one)) for one in (items[0], swapped)]
    return float((logits[0] - logits[1]).abs().max())


def test_a_plant_by_window_reads_in_its_layers_and_nowhere_else(truth, items, tmp_path):
    lalm = reared(Plant((3, 4), "window"), 1.0, tmp_path)
    assert moved(lalm, items) > 0.01
    found = truth.blindness(lalm, items)
    assert found.layers == (3, 4)
    assert np.abs(np.delete(found.cost, [3, 4])).max() < 0.02
    assert found.accuracy[0] > 0.45  # a third would be chance
    closed = mi.LALM(plant(lalm.model, Plant((), "window")), lalm.processor)
    assert moved(closed, items) == 0.0  # the same weights with no layer that reaches the sound


def test_a_plant_by_penalty_reads_in_its_layer_though_all_could(truth, items, tmp_path):
    lalm = reared(Plant((4,)), 0.2, tmp_path)
    text = lalm.model.config.text_config
    assert set(text.layer_types) == {"full_attention"}  # nothing shows in the masks
    found = truth.blindness(lalm, items)
    assert found.layers == (4,)
    assert found.cost[4] > 0.4
    assert found.accuracy[0] > 0.8
