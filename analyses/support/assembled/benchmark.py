"""A benchmark in MMAU's format: each clip has no caption, a true one and a false one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import soundfile

from .clips import Clip, ClipMaker
from .progress import Progress
from .questions import CAPTIONS, Question, ask
from .speech import RATE
from .streams import stream

__all__ = ["COUNTS", "FILE", "records_of", "write_benchmark"]

FILE = "assembled.json"
SERIES = "benchmark"
COUNTS: Mapping[str, int] = {"selection": 80, "test": 240}
CONDITIONS = ("neutral", "congruent", "conflict")
MODALITIES = {"word": "speech", "sound": "sound"}


def records_of(clip: Clip, question: Question, split: str, index: int, seed: int) -> list[dict]:
    """Return the three records of one clip: the same question with each kind of caption.

    Args:
        clip: the clip.
        question: on it.
        split: ``"selection"`` or ``"test"``.
        index: of the clip in its split.
        seed: seed of the build; the false caption is one of the wrong options.
    """
    name = f"{split}-{index:03d}-{clip.kind.replace('+', '-')}"
    wrong = [choice for choice in question.choices if choice != question.answer]
    false = wrong[stream(seed, "false caption", split, index).integers(len(wrong))]
    claims = dict(zip(CONDITIONS, (None, question.answer, false), strict=True))
    shared = {
        "audio_id": f"clips/{name}.wav",
        "question": question.text,
        "choices": list(question.choices),
        "answer": question.answer,
        "dataset": "assembled",
        "task": MODALITIES[question.role],
        "split": split,
        "category": MODALITIES[question.role],
        "sub-category": clip.kind,
        "difficulty": "medium",
        "clip": name,
        "sources": [segment.source for segment in clip.segments],
    }
    return [
        {"id": f"{name}-{condition}"}
        | shared
        | {
            "condition": condition,
            "caption": _caption(question, claim),
            "caption_answer": claim,
        }
        for condition, claim in claims.items()
    ]


def _caption(question: Question, claim: str | None) -> str:
    if claim is None:
        return ""
    return f"Description of the recording: {CAPTIONS[question.topic].format(claim)}"


def write_benchmark(folder: Path, makers: Mapping[str, ClipMaker], seed: int) -> None:
    """Write the clips (WAV, 16 bits) and the JSON file.

    Args:
        folder: gets `FILE` and ``clips``.
        makers: split -> maker of its clips.
        seed: seed of the build.
    """
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    records: list[dict] = []
    with Progress("writing the benchmark's clips", sum(COUNTS.values())) as progress:
        for split, count in COUNTS.items():
            maker = makers[split]
            for index in range(count):
                clip = maker.clip(SERIES, index)
                question = ask(clip.segments, maker.labels, stream(seed, "question", split, index))
                made = records_of(clip, question, split, index, seed)
                soundfile.write(folder / made[0]["audio_id"], clip.audio, RATE, subtype="PCM_16")
                records += made
                progress.advance()
    (folder / FILE).write_text(json.dumps(records, indent=0) + "\n")
