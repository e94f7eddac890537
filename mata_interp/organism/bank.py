"""The bank of recordings that every clip is mixed from: sound events, instruments and spoken words.

Sound events and instruments come from Debian's ``sonic-pi-samples`` and only from the recordings that its
copyright file lists one by one as CC0. Words are spoken by espeak-ng (GPL-3+; the licence covers the program,
not the sound it makes) in many voices. ``bank.json`` says for every recording where it came from, under which
licence, and in which splits it may be used.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from . import BANK

RATE = 16_000  # Hz; everything in the bank is mono at this rate
SPLITS = ("train", "selection", "test")


@dataclass(frozen=True)
class Recording:
    """One recording of the bank. ``label`` is what is heard: an option text such as "a bell", or a word."""

    name: str
    file: str
    role: str  # "event" or "word"
    label: str
    voice: str  # for words: "a man", "a woman" or "a whisperer"; else ""
    source: str
    licence: str
    splits: tuple[str, ...]


class Bank:
    """Recordings in memory, looked up by split, role and label."""

    def __init__(self, recordings: list[Recording], samples: dict[str, np.ndarray]) -> None:
        self.recordings = recordings
        self.samples = samples
        self.labels = sorted({r.label for r in recordings if r.role == "event"})
        self.words = sorted({r.label for r in recordings if r.role == "word"})
        self.voices = sorted({r.voice for r in recordings if r.role == "word"})

    def find(self, split: str, label: str, voice: str | None = None) -> list[Recording]:
        """All recordings of a label (and, for words, a kind of voice) that ``split`` may use, never empty."""
        found = [
            r
            for r in self.recordings
            if r.label == label and split in r.splits and (voice is None or r.voice == voice)
        ]
        if not found:
            raise KeyError(f"the bank has no recording of {label!r} for split {split!r}")
        return found

    def shared_labels(self) -> list[str]:
        """Event labels with too few recordings to keep the test split apart: used in training and test."""
        return [
            label
            for label in self.labels
            if {r.name for r in self.find("train", label)} & {r.name for r in self.find("test", label)}
        ]


def load_bank(folder: Path = BANK) -> Bank:
    """Read the bank that ships, float32 mono at 16 kHz, each recording at its own level (peak <= 1)."""
    recordings = [
        Recording(**{**record, "splits": tuple(record["splits"])})
        for record in json.loads((folder / "bank.json").read_text())["recordings"]
    ]
    samples: dict[str, np.ndarray] = {}
    for recording in recordings:
        data, rate = soundfile.read(folder / recording.file, dtype="float32")
        if rate != RATE:
            raise ValueError(f"{recording.file} is at {rate} Hz; the bank is {RATE} Hz throughout")
        samples[recording.name] = data
    return Bank(recordings, samples)


def save_bank(folder: Path, recordings: list[Recording], samples: dict[str, np.ndarray], notes: dict) -> None:
    """Write the bank as Ogg/Vorbis files and ``bank.json``."""
    for recording in recordings:
        path = folder / recording.file
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(
            path, samples[recording.name], RATE, format="OGG", subtype="VORBIS", compression_level=0.4
        )
    text = json.dumps({**notes, "recordings": [asdict(r) for r in recordings]}, indent=1)
    (folder / "bank.json").write_text(text + "\n")
