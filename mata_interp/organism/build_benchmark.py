"""The benchmark that ships: ``listening``, built from the bank with ``mata-interp organism benchmark``.

Every clip has one question under three conditions: without a caption (neutral), with a caption that names the
right option (congruent), and with a caption that names a wrong option (conflict). Clips of the confirmation
split use recordings that neither training nor the selection split uses, where the bank has enough of them.
``listening.json`` has the format of MMAU with a few more fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from .bank import RATE, Bank
from .questions import CONDITIONS, DOMAIN, KINDS, Question, make_question
from .scenes import Mixer, Scene

CLIPS = {"selection": 200, "confirmation": 400}
SEED = 20_261_126
CATEGORY = {"sound": "Sound events", "speech": "Spoken words", "music": "Notes and rhythm"}

# The released file calls the confirmation split "test"; `load_benchmark` maps the name when it reads the
# file.
FILE_SPLITS = {"selection": "selection", "confirmation": "test"}
# Stream number of each split, kept so that the shipped clips and questions can be rebuilt.
STREAMS = {"selection": 9, "confirmation": 4}


def split_generator(split: str, seed: int = SEED) -> np.random.Generator:
    """The random generator that the clips and questions of a split are drawn from."""
    return np.random.default_rng((seed, STREAMS[split]))


def build_listening(
    folder: Path, bank: Bank, clips: Mapping[str, int] | None = None, seed: int = SEED
) -> int:
    """Write ``listening.json`` and ``clips/*.ogg``.

    Args:
        folder: where to write.
        bank: the recordings.
        clips: split -> number of clips; those of the shipped benchmark if omitted.
        seed: of clips, questions and captions.

    Returns:
        The number of records, three for each clip.
    """
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    records: list[dict] = []
    for split, count in (clips or CLIPS).items():
        rng = split_generator(split, seed)
        mixer = Mixer(bank, split, rng)
        for i in range(count):
            kind = KINDS[i % len(KINDS)]
            scene = mixer.scene(kind)
            clip = f"{FILE_SPLITS[split]}-{i:03d}-{kind}"
            path = folder / f"clips/{clip}.ogg"
            soundfile.write(path, scene.samples, RATE, format="OGG", subtype="OPUS", compression_level=0.87)
            question = make_question(kind, scene, bank, rng)
            records += _records(clip, FILE_SPLITS[split], scene, question, rng)
    (folder / "listening.json").write_text(json.dumps(records, indent=0) + "\n")
    return len(records)


def _records(
    clip: str, file_split: str, scene: Scene, question: Question, rng: np.random.Generator
) -> list[dict]:
    """The records of one clip, one for each condition."""
    claims = {"neutral": None, "congruent": question.answer, "conflict": question.wrong_option(rng)}
    records = []
    for condition in CONDITIONS:
        claim = claims[condition]
        records.append(
            {
                "id": f"{clip}-{condition}",
                "audio_id": f"clips/{clip}.ogg",
                "question": question.text,
                "choices": list(question.choices),
                "answer": question.answer,
                "dataset": "listening",
                "task": DOMAIN[question.kind],
                "split": file_split,
                "category": CATEGORY[DOMAIN[question.kind]],
                "sub-category": question.kind,
                "difficulty": _difficulty(scene.facts["snr"]),
                "condition": condition,
                "caption": question.caption(claim, rng) if claim else "",
                "caption_answer": claim,
                "clip": clip,
                "sources": scene.recordings,
            }
        )
    return records


def _difficulty(snr: float) -> str:
    """Difficulty from the signal-to-noise ratio, dB."""
    if snr > 19:
        return "easy"
    return "medium" if snr > 12 else "hard"
