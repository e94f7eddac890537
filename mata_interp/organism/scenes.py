"""Scenes: recordings mixed at random into clips of 2 to 3 seconds, together with what is true of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .bank import RATE, Bank, Recording

SHORTEST, LONGEST = 2.0, 3.0  # seconds a clip lasts
SNR = (6.0, 26.0)  # dB, sounds against noise; drawn evenly
TONAL = ("a bell", "a piano", "a guitar", "a synth bass", "a beep")  # labels that can carry a melody


@dataclass
class Event:
    """One sound in a scene: what it is, when it starts (s) and how long it lasts (s)."""

    label: str
    start: float
    seconds: float


@dataclass
class Scene:
    """A clip (float32 mono at 16 kHz) and the facts questions are made from."""

    samples: np.ndarray
    events: list[Event]
    recordings: list[str]
    facts: dict = field(default_factory=dict)


class Mixer:
    """Draws scenes of one split from the bank with one random generator.

    Args:
        varied: whether recordings sound a little different each time, as for training: a label has a few
            recordings only, and an ear that knows them by heart does not know the next one.
    """

    def __init__(self, bank: Bank, split: str, rng: np.random.Generator, varied: bool = False) -> None:
        self.bank, self.split, self.rng, self.varied = bank, split, rng, varied

    def scene(self, kind: str) -> Scene:
        """A scene fit for a question of ``kind`` (the keys of :data:`SCENES`)."""
        return SCENES[kind](self)

    # --- pieces
    # -----------------------------------------------------------------------------------------------

    def pick(self, label: str, voice: str | None = None) -> Recording:
        found = self.bank.find(self.split, label, voice)
        return found[self.rng.integers(len(found))]

    def labels(self, n: int) -> list[str]:
        return [str(x) for x in self.rng.choice(self.bank.labels, n, replace=False)]

    def sound(self, recording: Recording, seconds: float, semitones: float = 0.0) -> np.ndarray:
        """At most ``seconds`` of a recording from its onset, resampled by ``semitones``, faded out."""
        source = self.bank.samples[recording.name]
        if self.varied:
            semitones += float(self.rng.uniform(-3, 3))
            source = self.coloured(source[: int(1.5 * seconds * RATE)])
        ratio = 2 ** (semitones / 12)
        n = min(int(len(source) / ratio), int(seconds * RATE))
        out = np.interp(np.arange(n) * ratio, np.arange(len(source)), source).astype(np.float32)
        fade = min(n, int(0.015 * RATE))
        out[n - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        return out / max(1e-4, float(np.sqrt(np.mean(out**2)))) * 0.1  # equal loudness: RMS 0.1

    def coloured(self, source: np.ndarray) -> np.ndarray:
        """The recording through a random filter (some 6 dB up and down over the octaves) and decay."""
        spectrum = np.fft.rfft(source, 1 << (len(source) - 1).bit_length())
        octaves = np.linspace(0, np.log2(len(spectrum)), 7)
        gains = np.interp(np.log2(np.arange(1, len(spectrum) + 1)), octaves, self.rng.normal(0, 6, 7))
        out = np.fft.irfft(spectrum * 10 ** (gains / 20))[: len(source)].astype(np.float32)
        return out * np.exp(-self.rng.exponential(1.0) * np.arange(len(out)) / RATE).astype(np.float32)

    def starts(self, lengths: list[float], total: float) -> list[float]:
        """Random onsets (s), in order, of sounds of these lengths that do not overlap in ``total``
        seconds."""
        free = total - sum(lengths) - 0.05 * len(lengths)
        gaps = self.rng.dirichlet(np.ones(len(lengths) + 1)) * max(0.0, free)
        starts, now = [], 0.0
        for gap, length in zip(gaps, lengths, strict=False):
            now += gap
            starts.append(now)
            now += length + 0.05
        return starts

    def mix(
        self,
        sounds: list[np.ndarray],
        labels: list[str],
        gains: list[float],
        recordings: list[str],
        starts: list[float] | None = None,
        **facts: object,
    ) -> Scene:
        """Place sounds one after another (gains in dB), add coloured noise and set a random overall level."""
        total = self.rng.uniform(SHORTEST, LONGEST)
        lengths = [len(s) / RATE for s in sounds]
        starts = starts or self.starts(lengths, total)
        clip = np.zeros(int(total * RATE), np.float32)
        for samples, start, gain in zip(sounds, starts, gains, strict=True):
            at = int(start * RATE)
            piece = samples[: len(clip) - at]
            clip[at : at + len(piece)] += piece * 10 ** (gain / 20)
        noise = self.noise(len(clip))
        snr = self.rng.uniform(*SNR)
        clip += noise * 0.1 * 10 ** (-snr / 20)
        clip *= 10 ** (self.rng.uniform(-12, 0) / 20)
        clip /= max(1.0, np.abs(clip).max() / 0.99)
        events = [Event(*e) for e in zip(labels, starts, lengths, strict=True)]
        return Scene(clip, events, sorted(set(recordings)), {"snr": snr, **facts})

    def noise(self, n: int) -> np.ndarray:
        """Noise of RMS 1 whose spectrum falls as f**-a, a drawn from 0 (white) to 1 (pink in power)."""
        spectrum = np.fft.rfft(
            self.rng.standard_normal(int(LONGEST * RATE))
        )  # a length that FFTs like, cut to n
        spectrum[1:] *= np.arange(1, len(spectrum)) ** (-self.rng.uniform(0.0, 0.5))
        out = np.fft.irfft(spectrum).astype(np.float32)[:n]
        return out / np.sqrt(np.mean(out**2))

    # --- scenes
    # -----------------------------------------------------------------------------------------------

    def sequence(self, low: int = 2, high: int = 3) -> Scene:
        """Two or three different sounds, one after another."""
        labels = self.labels(int(self.rng.integers(low, high + 1)))
        recordings = [self.pick(label) for label in labels]
        sounds = [self.sound(r, self.rng.uniform(0.4, 0.6), self.rng.uniform(-1, 1)) for r in recordings]
        gains = [float(g) for g in self.rng.uniform(-4, 0, len(labels))]
        return self.mix(sounds, labels, gains, [r.name for r in recordings])

    def repeated(self) -> Scene:
        """One sound, heard one to four times."""
        count = int(self.rng.integers(1, 5))
        label = self.labels(1)[0]
        recording = self.pick(label)
        sound = self.sound(recording, self.rng.uniform(0.2, 0.35), self.rng.uniform(-1, 1))
        return self.mix(
            [sound] * count, [label] * count, [0.0] * count, [recording.name], count=count, subject=label
        )

    def contrast(self) -> Scene:
        """Two sounds, one of them 10 to 16 dB louder."""
        labels = self.labels(2)
        recordings = [self.pick(label) for label in labels]
        sounds = [self.sound(r, 0.6, self.rng.uniform(-1, 1)) for r in recordings]
        louder = int(self.rng.integers(2))
        gains = [0.0 if i == louder else float(-self.rng.uniform(10, 16)) for i in range(2)]
        return self.mix(sounds, labels, gains, [r.name for r in recordings], louder=labels[louder])

    def speech(self) -> Scene:
        """One word, said once by a man, a woman or a whisperer."""
        word, voice = str(self.rng.choice(self.bank.words)), str(self.rng.choice(self.bank.voices))
        recording = self.pick(word, voice)
        sound = self.sound(recording, 1.0, self.rng.uniform(-0.5, 0.5))
        return self.mix([sound], [word], [0.0], [recording.name], word=word, voice=voice)

    def melody(self) -> Scene:
        """Three or four notes of one instrument that rise, fall or stay level."""
        label = str(self.rng.choice(TONAL))
        recording = self.pick(label)
        direction = int(self.rng.integers(-1, 2))
        steps = np.cumsum([0.0, *self.rng.uniform(5, 8, int(self.rng.integers(2, 4)))]) * direction
        pitches = steps - steps.mean() + self.rng.uniform(-3, 3)
        sounds = [self.sound(recording, 0.4, p) for p in pitches]
        names = [recording.name]
        return self.mix(
            sounds, [label] * len(sounds), [0.0] * len(sounds), names, direction=direction, instrument=label
        )

    def beat(self) -> Scene:
        """A steady beat, fast (6 to 7.5 strokes a second) or slow (1.6 to 2.6)."""
        label = str(self.rng.choice(["a bass drum", "a snare drum", "a tabla", "a finger snap", "a cymbal"]))
        recording = self.pick(label)
        fast = bool(self.rng.integers(2))
        period = 1 / (self.rng.uniform(6, 7.5) if fast else self.rng.uniform(1.6, 2.6))
        starts = [float(s) for s in np.arange(self.rng.uniform(0.02, 0.2), SHORTEST - 0.15, period)]
        sound = self.sound(recording, 0.12, self.rng.uniform(-1, 1))
        n = len(starts)
        return self.mix([sound] * n, [label] * n, [0.0] * n, [recording.name], starts=starts, fast=fast)


SCENES: dict[str, Callable[[Mixer], Scene]] = {
    "first": Mixer.sequence,
    "last": Mixer.sequence,
    "present": Mixer.sequence,
    "count": Mixer.repeated,
    "louder": Mixer.contrast,
    "word": Mixer.speech,
    "voice": Mixer.speech,
    "direction": Mixer.melody,
    "instrument": Mixer.melody,
    "tempo": Mixer.beat,
}
