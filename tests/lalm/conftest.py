"""A batch of three prompts of unlike length, and the eager twin of the tiny model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mata_interp.benchmarks import Item
from mata_interp.lalm import LALM
from tests.tiny import RATE, tiny_qwen2_audio


@pytest.fixture(scope="session")
def eager():
    """The model of ``tiny_lalm`` with eager attention, for the references."""
    return tiny_qwen2_audio(seed=0, attention="eager")[0]


@pytest.fixture(scope="session")
def half():
    """The tiny model in bfloat16."""
    model, processor = tiny_qwen2_audio(seed=0)
    return LALM(model.to(torch.bfloat16), processor)


@pytest.fixture(scope="session")
def items() -> list[Item]:
    noise = np.random.default_rng(0)

    def sound(seconds: float):
        return noise.normal(0, 0.1, round(seconds * RATE)).astype(np.float32), RATE

    return [
        Item(audio=sound(1.0), question="Which?", choices=("dog", "a bell", "x")),
        Item(audio=sound(0.5), question="Which of them comes first?", choices=("no", "rain falls")),
        Item(audio=sound(0.3), question="How many?", choices=("one", "two", "y", "three"), caption="A dog."),
    ]


@pytest.fixture
def prompt(tiny_lalm, items):
    """B = 3, left-padded."""
    return tiny_lalm.prompt(items)
