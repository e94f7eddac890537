"""Spoken words from espeak-ng, 16 kHz mono."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soxr

from mata_interp.errors import MataError

from .progress import Progress
from .streams import stream

__all__ = ["RATE", "load_speech", "require_espeak", "save_speech", "speak"]

RATE = 16_000  # Hz
SPEEDS = (120, 190)  # words per minute
PITCHES = (35, 65)  # espeak-ng's scale, 0 to 99


def require_espeak() -> None:
    """Raise `MataError` unless the program espeak-ng is installed."""
    if shutil.which("espeak-ng") is None:
        raise MataError(
            "The program espeak-ng, which speaks the words of the clips, is not installed. "
            "Install it (Debian, Ubuntu: `apt install espeak-ng`; macOS: `brew install espeak-ng`) and run "
            "the same command again."
        )


def speak(voice: str, word: str, seed: int) -> np.ndarray:
    """Return one spoken word without leading and trailing silence, float16 [samples], peak 1.

    Args:
        voice: espeak-ng voice, e.g. ``"en-us+f1"``.
        word: the word.
        seed: seed of the build; speed and pitch come from the stream of voice and word.
    """
    rng = stream(seed, "speech", voice, word)
    speed, pitch = int(rng.integers(*SPEEDS)), int(rng.integers(*PITCHES))
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode or not result.stdout:
        raise MataError(f"{' '.join(command)} failed: {result.stderr.decode(errors='replace').strip()}")
    samples, rate = wav_samples(result.stdout)
    audio = soxr.resample(samples, rate, RATE)
    loud = np.flatnonzero(np.abs(audio) > 0.01 * np.abs(audio).max())
    audio = audio[loud[0] : loud[-1] + 1]
    return (audio / np.abs(audio).max()).astype(np.float16)


def wav_samples(content: bytes) -> tuple[np.ndarray, int]:
    """Return float32 samples and the rate (Hz) of a 16-bit mono WAV whose header may lack the length.

    espeak-ng writes to a pipe and cannot know the length when it writes the header.
    """
    start = content.index(b"data") + 8
    whole = (len(content) - start) // 2 * 2
    samples = np.frombuffer(content[start : start + whole], dtype="<i2").astype(np.float32) / 32768
    return samples, int.from_bytes(content[24:28], "little")


def save_speech(path: Path, voices: Iterable[str], words: Iterable[str], seed: int) -> None:
    """Speak every word in every voice and write ``path``, an npz with one array per ``voice|word``."""
    require_espeak()
    pairs = [(voice, word) for voice in voices for word in words]
    with ThreadPoolExecutor(2) as pool, Progress("speaking words", len(pairs)) as progress:
        spoken = []
        for audio in pool.map(lambda pair: speak(pair[0], pair[1], seed), pairs):
            spoken.append(audio)
            progress.advance()
    arrays = {f"{voice}|{word}": audio for (voice, word), audio in zip(pairs, spoken, strict=True)}
    np.savez(path, **arrays)


def load_speech(path: Path) -> Mapping[str, np.ndarray]:
    """Read what `save_speech` wrote: ``voice|word`` -> float16 [samples]."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
