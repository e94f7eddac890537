"""A small benchmark in a folder: real audio, a data file, valid and invalid records."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

RATE = 16_000


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six clips of half a second, ``clips/0.wav`` to ``clips/5.wav``, all different."""
    (tmp_path / "clips").mkdir()
    for n in range(6):
        noise = np.random.default_rng(n).normal(0, 0.1, RATE // 2).astype(np.float32)
        soundfile.write(tmp_path / "clips" / f"{n}.wav", noise, RATE)
    return tmp_path


def a_record(n: int = 0, **values: Any) -> dict[str, Any]:
    """A record in MMAU's format about clip ``n``."""
    return {
        "id": f"q{n}",
        "audio_id": f"./clips/{n}.wav",
        "question": "Which sound comes first?",
        "choices": ["a dog", "a bell", "rain"],
        "answer": "a bell",
        "dataset": "Small",
        "task": "sound",
        "split": "test-mini",
        "category": "Reasoning",
        "sub-category": "order",
        "difficulty": "easy",
    } | values


def write_json(file: Path, records: Any) -> Path:
    file.write_text(json.dumps(records), encoding="utf-8")
    return file


def downloaded_file(name: str) -> Path:
    """A file of the released metadata; the test is skipped where there is none."""
    place = os.environ.get("MATA_BENCHMARK_DIR")
    if not place:
        pytest.skip("MATA_BENCHMARK_DIR is not set: it is the folder with the metadata of MMAU and MMAR")
    return Path(place) / name
