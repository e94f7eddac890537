"""Fixtures of all tests, and the order in which they run: fast ones first."""

from __future__ import annotations

import gc
import os
import tempfile

import pytest
from hypothesis import settings

# The same examples every time, however busy the machine is.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

# No test warns about unchecked models, in this process or in those that tests start; records of checks go to
# a folder that is removed at the end.
_cache = tempfile.TemporaryDirectory(prefix="mata-cache-")
os.environ.update(MATA_UNCHECKED="ignore", MATA_CACHE=_cache.name)


# Folders in the order in which their tests run, from a second to minutes; other tests come first.
ORDER = (
    "attention",
    "statistics",
    "interventions",
    "benchmarks",
    "tracing",
    "lalm",
    "attaching",
    "sweeps",
    "checking",
    "fusion",
    "second_device",
    "families",
    "reporting",
    "cli",
    "organism",
    "sharing",
    "experiments",
    "analyses",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run fast tests first, so that a broken core is seen in the first minute."""

    def place(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return ORDER.index(folder) + 1 if folder in ORDER else 0

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Leave what imports and collecting made out of later garbage collections, which then take less time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_lalm():
    """An LALM over the tiny random Qwen2-Audio of ``tests/tiny.py`` (1 s of audio, 4 layers, 4 heads)."""
    from mata_interp.lalm import LALM
    from tests.tiny import tiny_qwen2_audio

    return LALM(*tiny_qwen2_audio(seed=0))
