"""The bank of recordings that every clip is mixed from: sound events, instruments and spoken words.

Sound events and instruments come from Debian's ``sonic-pi-samples``, and only from the recordings that its
copyright file lists as CC0. Words are spoken by espeak-ng (GPL-3+; the licence covers the program, not its
output) in many voices. ``bank.json`` lists the source, the licence and the splits of every recording.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from . import BANK, OrganismError

RATE = 16_000  # Hz; every recording of the bank is mono at this rate
SPLITS = ("train", "selection", "confirmation")


@dataclass(frozen=True)
class Recording:
    """One recording of the bank.

    Attributes:
        name: unique name of the recording.
        file: path of the audio file, relative to the bank's folder.
        role: ``"event"`` or ``"word"``.
        label: option text, such as ``"a bell"``, or the spoken word.
        voice: for words, ``"a man"``, ``"a woman"`` or ``"a whisperer"``; empty for events.
        source: program or package that the recording comes from.
        licence: SPDX identifier of the licence.
        splits: splits that may use the recording.
    """

    name: str
    file: str
    role: str
    label: str
    voice: str
    source: str
    licence: str
    splits: tuple[str, ...]


class Bank:
    """Recordings in memory, looked up by split, label and voice.

    Attributes:
        recordings: all recordings.
        samples: name -> float32 ``[n]``, mono at ``RATE``.
        labels: labels of the events, sorted.
        words: spoken words, sorted.
        voices: kinds of voice, sorted.
    """

    def __init__(self, recordings: Sequence[Recording], samples: Mapping[str, np.ndarray]) -> None:
        self.recordings = list(recordings)
        self.samples = dict(samples)
        self.labels = sorted({r.label for r in self.recordings if r.role == "event"})
        self.words = sorted({r.label for r in self.recordings if r.role == "word"})
        self.voices = sorted({r.voice for r in self.recordings if r.role == "word"})

    def find(self, split: str, label: str, voice: str | None = None) -> list[Recording]:
        """All recordings of a label that a split may use; never empty.

        Args:
            split: one of ``SPLITS``.
            label: an event's label or a word.
            voice: for words, the kind of voice; ``None`` for any.

        Raises:
            OrganismError: there is no such recording.
        """
        matches = [
            recording
            for recording in self.recordings
            if recording.label == label
            and split in recording.splits
            and (voice is None or recording.voice == voice)
        ]
        if not matches:
            raise OrganismError(f"The bank has no recording of {label!r} for split {split!r}.")
        return matches

    def shared_labels(self) -> list[str]:
        """Event labels with recordings that are used both in training and in the confirmation split."""
        shared = []
        for label in self.labels:
            train = {recording.name for recording in self.find("train", label)}
            confirmation = {recording.name for recording in self.find("confirmation", label)}
            if train & confirmation:
                shared.append(label)
        return shared


def load_bank(folder: Path = BANK) -> Bank:
    """Load the bank that ships: float32, mono, 16 kHz, each recording at its own level (peak about 1 at
    most).

    Raises:
        OrganismError: a recording has another sampling rate.
    """
    entries = json.loads((folder / "bank.json").read_text())["recordings"]
    recordings = [Recording(**{**entry, "splits": tuple(entry["splits"])}) for entry in entries]
    samples: dict[str, np.ndarray] = {}
    for recording in recordings:
        data, rate = soundfile.read(folder / recording.file, dtype="float32")
        if rate != RATE:
            raise OrganismError(f"{recording.file} is sampled at {rate} Hz; the bank needs {RATE} Hz.")
        samples[recording.name] = data
    return Bank(recordings, samples)


def save_bank(
    folder: Path, recordings: Sequence[Recording], samples: Mapping[str, np.ndarray], notes: Mapping[str, Any]
) -> None:
    """Write the recordings as Ogg/Vorbis files, and ``bank.json`` with ``notes`` before the list."""
    for recording in recordings:
        path = folder / recording.file
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(
            path, samples[recording.name], RATE, format="OGG", subtype="VORBIS", compression_level=0.4
        )
    text = json.dumps({**notes, "recordings": [asdict(r) for r in recordings]}, indent=1)
    (folder / "bank.json").write_text(text + "\n")
