"""A fresh tiny model for every test."""

from __future__ import annotations

import pytest

from mata_interp.lalm import LALM
from tests.tiny import tiny_qwen2_audio


@pytest.fixture
def lalm() -> LALM:
    """Built anew, because some of these tests break it."""
    return LALM(*tiny_qwen2_audio(seed=0, layers=3))
