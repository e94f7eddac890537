"""What a page needs of a clip: its audio as Ogg, the outline of its waveform, and its spectrogram."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from scipy import signal

__all__ = ["AUDIO_BYTES", "ClipMedia", "clip_media", "encode_audio", "mel_spectrogram", "waveform_peaks"]

AUDIO_BYTES = 160_000  # of one item's audio, at most
PEAKS = 600  # of the waveform: a page shows about so many pixels
FRAMES, BANDS = 320, 64  # of the spectrogram, at most
RANGE_DB = 70.0  # between black and white
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
LEVELS = (0.87, 0.93, 0.97, 1.0)  # libsndfile's compression of Opus: about 38, 23, 13 and 6 kbit/s
BLOCK = 48_000  # samples at once: libsndfile's Vorbis encoder overflows its stack on long arrays


@dataclass(frozen=True, eq=False)
class ClipMedia:
    """A clip for a page.

    Attributes:
        audio: Ogg/Opus, or Ogg/Vorbis where libsndfile has no Opus; None where it would be too large.
        peaks: smallest and largest sample of each stretch, scaled to the loudest: int8 [2, P].
        spectrogram: mel bands from low to high, 0 is `RANGE_DB` below the loudest: uint8 [bands, frames].
        top_hz: upper edge of the highest band, in Hz.
        problem: why there is no audio; "" if there is.
    """

    audio: bytes | None
    peaks: np.ndarray
    spectrogram: np.ndarray
    top_hz: float
    problem: str = ""


def clip_media(samples: np.ndarray, rate: int, limit: int = AUDIO_BYTES) -> ClipMedia:
    """Audio, peaks and spectrogram of mono samples.

    Args:
        samples: float [n], from -1 to 1.
        rate: samples per second.
        limit: size of the audio, in bytes.
    """
    audio = encode_audio(samples, rate, limit)
    problem = ""
    if audio is None:
        problem = f"the {len(samples) / rate:.0f} s of audio take more than {limit // 1000} kB"
    return ClipMedia(audio, waveform_peaks(samples), mel_spectrogram(samples, rate), rate / 2, problem)


def encode_audio(samples: np.ndarray, rate: int, limit: int = AUDIO_BYTES) -> bytes | None:
    """Mono samples as an Ogg file of at most ``limit`` bytes; None where even the lowest quality is larger.

    Opus has the best quality per byte, and every browser that plays Ogg plays it. Rates that Opus does not
    have are resampled to the next higher one.

    Args:
        samples: float [n], from -1 to 1; louder samples are clipped.
        rate: samples per second.
        limit: size of the file, in bytes.

    Examples:
        >>> tone = np.sin(np.arange(16_000) / 10)
        >>> encode_audio(tone, 16_000)[:4]
        b'OggS'
    """
    opus = "OPUS" in soundfile.available_subtypes("OGG")
    if opus and rate not in OPUS_RATES:
        target = next((known for known in OPUS_RATES if known > rate), OPUS_RATES[-1])
        samples, rate = soxr.resample(np.asarray(samples, dtype=np.float32), rate, target), target
    clipped = np.clip(samples, -1, 1)
    for level in LEVELS:
        stream = io.BytesIO()
        with soundfile.SoundFile(
            stream, "w", rate, 1, "OPUS" if opus else "VORBIS", format="OGG", compression_level=level
        ) as file:
            for begin in range(0, len(clipped), BLOCK):
                file.write(clipped[begin : begin + BLOCK])
                if len(stream.getbuffer()) > limit:  # it only grows: a long clip is not encoded to its end
                    break
        if len(stream.getbuffer()) <= limit:
            return stream.getvalue()
    return None


def waveform_peaks(samples: np.ndarray, count: int = PEAKS) -> np.ndarray:
    """Smallest and largest sample of up to ``count`` stretches, scaled to the loudest: int8 [2, P]."""
    loudest = float(np.abs(samples).max(initial=0.0)) or 1.0
    parts = np.array_split(np.asarray(samples, dtype=np.float64) / loudest, min(count, max(len(samples), 1)))
    extremes = [(part.min(initial=0.0), part.max(initial=0.0)) for part in parts]
    return np.round(np.array(extremes).T * 127).astype(np.int8)


def mel_spectrogram(samples: np.ndarray, rate: int) -> np.ndarray:
    """Power in mel bands over time, in decibels below the loudest: uint8 [bands, frames], 255 the loudest.

    Windows (Hann) of 32 ms or of two frames, whichever is longer, so that no sample is left out of a long
    clip. The mel scale is 2595 log10(1 + f / 700) (O'Shaughnessy 1987).

    Args:
        samples: float [n].
        rate: samples per second.
    """
    hop = max(round(0.008 * rate), -(-len(samples) // FRAMES))
    window = max(round(0.032 * rate), 2 * hop)
    hann = np.hanning(window + 1)[:-1]  # periodic
    transform = signal.ShortTimeFFT(hann, hop, rate)
    padded = np.pad(np.asarray(samples, dtype=np.float64), (0, max(0, window - len(samples))))
    power = transform.spectrogram(padded, p0=0, p1=-(-len(padded) // hop))  # (frequencies, frames)
    bands = mel_bands(transform.f, rate / 2) @ power
    decibels = 10 * np.log10(np.maximum(bands, 1e-20) / max(bands.max(), 1e-20))
    return np.round(np.clip(1 + decibels / RANGE_DB, 0, 1) * 255).astype(np.uint8)


def mel_bands(frequencies: np.ndarray, top: float, bands: int = BANDS) -> np.ndarray:
    """Weights [bands, frequencies], mean 1, of triangles evenly spaced in mel from 0 to ``top`` Hz."""
    mel = 2595 * np.log10(1 + frequencies / 700)
    edges = np.linspace(0, 2595 * np.log10(1 + top / 700), bands + 2)
    rising = (mel - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - mel) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.clip(np.minimum(rising, falling), 0, None)
    empty = weights.sum(1) == 0  # a narrow band between two frequencies takes the nearest one
    nearest = np.abs(mel[None] - edges[1:-1][empty, None]).argmin(1)
    weights[np.flatnonzero(empty), nearest] = 1.0
    return weights / weights.sum(1, keepdims=True)
