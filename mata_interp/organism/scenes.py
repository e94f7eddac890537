"""Scenes: recordings mixed at random into clips of 2 to 3 seconds, with the facts that questions ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .bank import RATE, Bank, Recording

SHORTEST, LONGEST = 2.0, 3.0  # length of a clip, seconds
SNR = (6.0, 26.0)  # signal-to-noise ratio, dB; uniform
TONAL = ("a bell", "a piano", "a guitar", "a synth bass", "a beep")  # labels that can carry a melody


@dataclass
class Event:
    """One sound of a scene: its label, its onset in seconds and its length in seconds."""

    label: str
    start: float
    seconds: float


@dataclass
class Scene:
    """One clip and its ground truth.

    Attributes:
        samples: float32 ``[n]``, mono at 16 kHz.
        events: the sounds, in order of onset.
        recordings: names of the recordings of the bank, sorted.
        facts: what questions are made from, such as ``{"count": 3, "subject": "a bell"}``; always ``"snr"``.
    """

    samples: np.ndarray
    events: list[Event]
    recordings: list[str]
    facts: dict = field(default_factory=dict)


class Mixer:
    """Draw scenes of one split from the bank with one random generator.

    Args:
        bank: the recordings.
        split: split of the bank.
        rng: source of all random choices.
        augment: whether to vary pitch, spectrum and decay of every recording. Training needs this: a label
            has few recordings, and an encoder that memorises them does not generalise to new ones.
    """

    def __init__(self, bank: Bank, split: str, rng: np.random.Generator, augment: bool = False) -> None:
        self.bank, self.split, self.rng, self.augment = bank, split, rng, augment

    def scene(self, kind: str) -> Scene:
        """A scene for a question of ``kind``, a key of `SCENES`."""
        return SCENES[kind](self)

    def pick(self, label: str, voice: str | None = None) -> Recording:
        """A random recording of a label and, for words, of a kind of voice."""
        recordings = self.bank.find(self.split, label, voice)
        return recordings[self.rng.integers(len(recordings))]

    def pick_labels(self, n: int) -> list[str]:
        """``n`` different random event labels."""
        return [str(x) for x in self.rng.choice(self.bank.labels, n, replace=False)]

    def render(self, recording: Recording, seconds: float, semitones: float = 0.0) -> np.ndarray:
        """At most ``seconds`` of a recording from its onset, shifted by ``semitones``, faded out, RMS 0.1."""
        source = self.bank.samples[recording.name]
        if self.augment:
            semitones += float(self.rng.uniform(-3, 3))
            source = self.filter_randomly(source[: int(1.5 * seconds * RATE)])
        ratio = 2 ** (semitones / 12)
        n = min(int(len(source) / ratio), int(seconds * RATE))
        out = np.interp(np.arange(n) * ratio, np.arange(len(source)), source).astype(np.float32)
        fade = min(n, int(0.015 * RATE))
        out[n - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        return out / max(1e-4, float(np.sqrt(np.mean(out**2)))) * 0.1  # equal loudness: RMS 0.1

    def filter_randomly(self, source: np.ndarray) -> np.ndarray:
        """Apply a random filter (standard deviation 6 dB over the octaves) and a random exponential decay."""
        spectrum = np.fft.rfft(source, 1 << (len(source) - 1).bit_length())
        octaves = np.linspace(0, np.log2(len(spectrum)), 7)
        gains = np.interp(np.log2(np.arange(1, len(spectrum) + 1)), octaves, self.rng.normal(0, 6, 7))
        out = np.fft.irfft(spectrum * 10 ** (gains / 20))[: len(source)].astype(np.float32)
        return out * np.exp(-self.rng.exponential(1.0) * np.arange(len(out)) / RATE).astype(np.float32)

    def draw_onsets(self, lengths: list[float], total: float) -> list[float]:
        """Random onsets in seconds, in order, of sounds of these lengths that do not overlap.

        Args:
            lengths: seconds of each sound.
            total: seconds of the clip.
        """
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
        """Place sounds one after another, add coloured noise and set a random overall level.

        Args:
            sounds: float32 ``[n]`` of each sound.
            labels: label of each sound.
            gains: gain of each sound, dB.
            recordings: names of the recordings.
            starts: onset of each sound in seconds; random if omitted.
            **facts: facts of the scene.
        """
        total = self.rng.uniform(SHORTEST, LONGEST)
        lengths = [len(s) / RATE for s in sounds]
        starts = starts or self.draw_onsets(lengths, total)
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
        """Noise of RMS 1 with a power spectrum of f**-a, a uniform from 0 (white) to 1 (pink)."""
        # the transform has one fixed length, which is fast, and the result is cut to n
        spectrum = np.fft.rfft(self.rng.standard_normal(int(LONGEST * RATE)))
        spectrum[1:] *= np.arange(1, len(spectrum)) ** (-self.rng.uniform(0.0, 0.5))
        out = np.fft.irfft(spectrum).astype(np.float32)[:n]
        return out / np.sqrt(np.mean(out**2))

    def sequence(self, low: int = 2, high: int = 3) -> Scene:
        """Two or three different sounds, one after another."""
        labels = self.pick_labels(int(self.rng.integers(low, high + 1)))
        recordings = [self.pick(label) for label in labels]
        sounds = [self.render(r, self.rng.uniform(0.4, 0.6), self.rng.uniform(-1, 1)) for r in recordings]
        gains = [float(g) for g in self.rng.uniform(-4, 0, len(labels))]
        return self.mix(sounds, labels, gains, [r.name for r in recordings])

    def repeated(self) -> Scene:
        """One sound, one to four times."""
        count = int(self.rng.integers(1, 5))
        label = self.pick_labels(1)[0]
        recording = self.pick(label)
        sound = self.render(recording, self.rng.uniform(0.2, 0.35), self.rng.uniform(-1, 1))
        return self.mix(
            [sound] * count, [label] * count, [0.0] * count, [recording.name], count=count, subject=label
        )

    def contrast(self) -> Scene:
        """Two sounds, one of them 10 to 16 dB louder."""
        labels = self.pick_labels(2)
        recordings = [self.pick(label) for label in labels]
        sounds = [self.render(r, 0.6, self.rng.uniform(-1, 1)) for r in recordings]
        louder = int(self.rng.integers(2))
        gains = [0.0 if i == louder else float(-self.rng.uniform(10, 16)) for i in range(2)]
        return self.mix(sounds, labels, gains, [r.name for r in recordings], louder=labels[louder])

    def speech(self) -> Scene:
        """One word, spoken once by a man, a woman or a whisperer."""
        word, voice = str(self.rng.choice(self.bank.words)), str(self.rng.choice(self.bank.voices))
        recording = self.pick(word, voice)
        sound = self.render(recording, 1.0, self.rng.uniform(-0.5, 0.5))
        return self.mix([sound], [word], [0.0], [recording.name], word=word, voice=voice)

    def melody(self) -> Scene:
        """Three or four notes of one instrument that rise, fall or stay level."""
        label = str(self.rng.choice(TONAL))
        recording = self.pick(label)
        direction = int(self.rng.integers(-1, 2))
        steps = np.cumsum([0.0, *self.rng.uniform(5, 8, int(self.rng.integers(2, 4)))]) * direction
        pitches = steps - steps.mean() + self.rng.uniform(-3, 3)
        sounds = [self.render(recording, 0.4, p) for p in pitches]
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
        sound = self.render(recording, 0.12, self.rng.uniform(-1, 1))
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
