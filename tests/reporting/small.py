"""A small benchmark and a tiny model on disk, and a study of one on the other: what pages are tested with."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from mata_interp.errors import RunWarning
from tests.tiny import RATE, tiny_qwen2_audio

HOSTILE = (
    "</script><script>alert(1)</script><img src=http://example.com/x onerror=alert(2)> {{ 7 * 7 }} $\\frac"
)


def write_model(folder: Path) -> Path:
    """The tiny model and its processor, saved as any model is."""
    model, processor = tiny_qwen2_audio(seed=0, layers=3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_clips(folder: Path, n: int) -> list[Path]:
    """``n`` different short sounds."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = []
    for clip in range(n):
        time = np.arange(RATE // 2) / RATE
        tone = 0.2 * np.sin(2 * np.pi * (200 + 60 * clip) * time) + rng.normal(0, 0.02, len(time))
        paths.append(folder / f"{clip}.wav")
        soundfile.write(paths[-1], tone.astype(np.float32), RATE)
    return paths


def write_benchmark(folder: Path, clips: int = 8, hostile: str = "") -> Path:
    """A benchmark in MMAU's format, three captions for each clip; returns its file.

    Two records cannot be used; ``hostile`` words are put wherever a file can put words.
    """
    write_clips(folder / "clips", clips)
    records = []
    for clip in range(clips):
        answer = ("high", "low")[clip % 2]
        for condition in ("neutral", "congruent", "conflict"):
            says = {"neutral": None, "congruent": answer, "conflict": "low" if answer == "high" else "high"}[
                condition
            ]
            records.append({
                "id": f"{clip}-{condition}{hostile}",
                "audio_id": f"clips/{clip}.wav",
                "question": f"Is the tone high or low? {hostile}",
                "choices": ["high", "low"],
                "answer": answer,
                "task": ("sound", f"music{hostile}")[clip % 3 == 0],
                "split": "selection" if clip < clips // 2 else "test",
                "sub-category": f"pitch{hostile}",
                "condition": condition,
                "caption": f"A {says} tone." if says else "",
                "caption_answer": says,
                "clip": f"clip {clip}{hostile}",
                "source": f"clip {clip}{hostile}",
            })  # fmt: skip
    records.append({**records[0], "id": f"bad answer{hostile}", "answer": f"neither{hostile}"})
    records.append({**records[0], "id": "no sound", "audio_id": "clips/missing.wav"})
    file = folder / "tones.json"
    file.write_text(json.dumps(records), encoding="utf-8")
    return file


@dataclass(frozen=True)
class Small:
    """Where things are: a model folder, a benchmark file, a finished run folder of `study`."""

    model: Path
    benchmark: Path
    run: Path


@functools.cache
def small_study(hostile: str = "") -> Small:
    """A real study, made once a session."""
    import mata_interp as mi

    folder = Path(tempfile.mkdtemp(prefix="mata-interp-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    small = Small(
        write_model(folder / "model"), write_benchmark(folder / "bench", hostile=hostile), folder / "run"
    )
    items = mi.load_benchmark(small.benchmark)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)  # two items are meant to be left out
        mi.study(mi.LALM.from_pretrained(small.model), items, small.run, progress=False)
        mi.report(small.run)
    return small
