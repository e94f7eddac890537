"""Clips of 2 s: spoken words and sounds on faint noise, with a list of what sounds when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mata_interp.organism.bank import Bank

from .speech import RATE
from .streams import stream
from .vocabulary import SPLITS, VOICES, WORDS, recordings_by_split

__all__ = ["KINDS", "SECONDS", "Clip", "ClipMaker", "Segment", "kind_of"]

SECONDS = 2
SAMPLES = SECONDS * RATE
PARTS = {
    "word": ("word",),
    "words": ("word", "word"),
    "sound": ("sound",),
    "sounds": ("sound", "sound"),
    "word+sound": ("word", "sound"),
}
# How often each kind of clip occurs, out of 20.
KINDS = {"word": 6, "words": 5, "sound": 3, "sounds": 1, "word+sound": 5}
CYCLE = tuple(kind for kind, count in KINDS.items() for _ in range(count))
FADE = 400  # samples
LONGEST_SOUND = {1: 1.5, 2: 0.9}  # seconds, by number of parts


@dataclass(frozen=True)
class Segment:
    """One word or sound of a clip.

    Attributes:
        role: ``"word"`` or ``"sound"``.
        label: the word, or the sound's label such as ``"a bell"``.
        start, stop: seconds from the clip's beginning.
        source: ``voice|word``, or the name of the bank's recording.
    """

    role: str
    label: str
    start: float
    stop: float
    source: str


@dataclass(frozen=True)
class Clip:
    """Audio (float32 [samples], 16 kHz mono) and its segments in order of time."""

    kind: str
    audio: np.ndarray
    segments: tuple[Segment, ...]


def kind_of(index: int) -> str:
    """Return the kind of the clip at a position of any series of clips: kinds come in a fixed cycle of 20."""
    return CYCLE[index % len(CYCLE)]


class ClipMaker:
    """Make clips from the recordings that a split may use.

    Clip ``index`` of a series depends on seed, series and index alone, not on the clips before it.

    Args:
        bank: the shipped bank of sounds.
        speech: ``voice|word`` -> samples at 16 kHz.
        split: ``"train"``, ``"selection"`` or ``"test"``.
        seed: seed of the build.
    """

    def __init__(self, bank: Bank, speech: Mapping[str, np.ndarray], split: str, seed: int) -> None:
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
        names: dict[str, list[str]] = {}
        for recording in bank.recordings:
            if recording.role == "event":
                names.setdefault(recording.label, []).append(recording.name)
        self.bank, self.speech, self.split, self.seed = bank, speech, split, seed
        self.recordings = recordings_by_split(names)[split]
        self.labels = {"word": WORDS, "sound": tuple(self.recordings)}

    def clip(self, series: str, index: int) -> Clip:
        """Return clip ``index`` of ``series``."""
        rng = stream(self.seed, "clip", self.split, series, index)
        kind = kind_of(index)
        roles = list(rng.permutation(PARTS[kind]))
        longest = LONGEST_SOUND[len(roles)]
        labels = self._distinct_labels(roles, rng)
        pieces = [self._piece(role, label, longest, rng) for role, label in zip(roles, labels, strict=True)]
        free = max(SAMPLES - sum(len(samples) for _, samples in pieces), 0)
        gaps = np.sort(rng.integers(0, free + 1, len(pieces)))
        audio = rng.normal(0, 10 ** rng.uniform(-4, -2.5), SAMPLES)
        segments, used = [], 0
        for role, label, gap, (source, samples) in zip(roles, labels, gaps, pieces, strict=True):
            start = min(int(gap) + used, SAMPLES - 1)
            stop = min(start + len(samples), SAMPLES)
            audio[start:stop] += rng.uniform(0.3, 0.8) * samples[: stop - start]
            segments.append(Segment(role, label, start / RATE, stop / RATE, source))
            used += len(samples)
        return Clip(kind, audio.astype(np.float32), tuple(segments))

    def _distinct_labels(self, roles: list[str], rng: np.random.Generator) -> list[str]:
        """Draw one label per role, none twice."""
        labels: list[str] = []
        for role in roles:
            choices = [label for label in self.labels[role] if label not in labels]
            labels.append(choices[rng.integers(len(choices))])
        return labels

    def _piece(
        self, role: str, label: str, longest: float, rng: np.random.Generator
    ) -> tuple[str, np.ndarray]:
        """Draw one recording of a label: its source and its samples, peak 1."""
        if role == "word":
            voices = VOICES[self.split]
            source = f"{voices[rng.integers(len(voices))]}|{label}"
            return source, self.speech[source].astype(np.float32)
        names = self.recordings[label]
        source = names[rng.integers(len(names))]
        samples = self.bank.samples[source]
        # Few recordings per sound: each is played at another speed every time.
        speed = 2 ** rng.uniform(-0.25, 0.25)
        positions = np.arange(0, len(samples) - 1, speed)[: int(longest * RATE)]
        samples = np.interp(positions, np.arange(len(samples)), samples)
        samples = samples / max(np.abs(samples).max(), 1e-3)
        fade = min(FADE, len(samples))
        samples[-fade:] *= np.linspace(1, 0, fade)
        return source, samples
