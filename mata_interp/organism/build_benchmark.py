"""The benchmark that ships: ``listening``, made from the bank with ``mata-interp organism benchmark``.

Every clip is asked about three times: without a caption (neutral), with one that names the right option
(congruent) and with one that names a wrong option (conflict). Test clips use recordings that training and
selection never heard, where the bank has enough of them; ``listening.json`` is in MMAU's format with a few
more fields.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from .bank import RATE, Bank
from .questions import CONDITIONS, DOMAIN, KINDS, ask
from .scenes import Mixer, Scene

CLIPS = {"selection": 200, "test": 400}
SEED = 20_261_126
CATEGORY = {"sound": "Sound events", "speech": "Spoken words", "music": "Notes and rhythm"}


def build_listening(folder: Path, bank: Bank, clips: dict[str, int] | None = None, seed: int = SEED) -> int:
    """Write ``listening.json`` and ``clips/*.ogg`` into ``folder``; returns the number of records."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    records: list[dict] = []
    for split, count in (clips or CLIPS).items():
        rng = np.random.default_rng((seed, len(split)))
        mixer = Mixer(bank, split, rng)
        for i in range(count):
            kind = KINDS[i % len(KINDS)]
            scene = mixer.scene(kind)
            clip = f"{split}-{i:03d}-{kind}"
            path = folder / f"clips/{clip}.ogg"
            soundfile.write(path, scene.samples, RATE, format="OGG", subtype="OPUS", compression_level=0.87)
            records += _records(clip, split, kind, scene, bank, rng)
    (folder / "listening.json").write_text(json.dumps(records, indent=0) + "\n")
    return len(records)


def _records(
    clip: str, split: str, kind: str, scene: Scene, bank: Bank, rng: np.random.Generator
) -> list[dict]:
    question = ask(kind, scene, bank, rng)
    claims = {"neutral": None, "congruent": question.answer, "conflict": question.wrong(rng)}
    return [
        {
            "id": f"{clip}-{condition}",
            "audio_id": f"clips/{clip}.ogg",
            "question": question.text,
            "choices": list(question.choices),
            "answer": question.answer,
            "dataset": "listening",
            "task": DOMAIN[kind],
            "split": split,
            "category": CATEGORY[DOMAIN[kind]],
            "sub-category": kind,
            "difficulty": _difficulty(scene.facts["snr"]),
            "condition": condition,
            "caption": question.caption(claims[condition], rng) if claims[condition] else "",
            "caption_answer": claims[condition],
            "clip": clip,
            "sources": scene.recordings,
        }
        for condition in CONDITIONS
    ]


def _difficulty(snr: float) -> str:
    """By the ratio of sound to noise, in dB."""
    return "easy" if snr > 19 else "medium" if snr > 12 else "hard"
