"""Fixtures for every room."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import settings

# The same examples every time, however busy the machine is.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

# Models of the tests are not told of as unchecked, here and in processes that tests start; what is remembered
# of checks is gone when the tests are.
_cache = tempfile.TemporaryDirectory(prefix="mata-cache-")
os.environ.update(MATA_UNCHECKED="ignore", MATA_CACHE=_cache.name)


@pytest.fixture(scope="session")
def tiny_lalm():
    """An LALM over the tiny random Qwen2-Audio of ``tests/tiny.py`` (1 s of audio, 4 layers, 4 heads)."""
    from mata_interp.lalm import LALM
    from tests.tiny import tiny_qwen2_audio

    return LALM(*tiny_qwen2_audio(seed=0))
