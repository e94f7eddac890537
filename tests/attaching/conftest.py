"""A model as transformers alone has it, and the same model as an LALM for the reference."""

from __future__ import annotations

import numpy as np
import pytest

import mata_interp as mi
from mata_interp.lalm import LALM
from tests.tiny import RATE, tiny_qwen2_audio


@pytest.fixture(scope="session")
def items() -> list[mi.Item]:
    """Three items whose prompts have unlike lengths."""
    noise = np.random.default_rng(0)

    def sound(seconds: float):
        return noise.normal(0, 0.1, round(seconds * RATE)).astype(np.float32), RATE

    return [
        mi.Item(audio=sound(1.0), question="Which?", choices=("dog", "a bell", "x")),
        mi.Item(audio=sound(0.5), question="Which of them comes first?", choices=("no", "rain falls")),
        mi.Item(audio=sound(0.3), question="How many?", choices=("one", "two", "y", "three"), caption="Dog."),
    ]


@pytest.fixture(scope="session", params=["sdpa", "eager"])
def lalm(request) -> LALM:
    return LALM(*tiny_qwen2_audio(seed=0, attention=request.param))


@pytest.fixture(scope="session")
def prompt(lalm, items) -> mi.Prompt:
    """B = 3, left-padded."""
    return lalm.prompt(items)
