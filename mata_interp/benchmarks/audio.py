"""Sound in, as every model wants it: decoded, mono, at one rate, finite, and named by its content."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..errors import ItemError
from .cache import SoundCache

__all__ = ["Audio", "AudioSource", "find_audio", "load_audio"]

AudioSource = str | Path | tuple[np.ndarray, int]

# libsndfile decodes what is left of a cut file without an error; only its log says that something is missing.
_CUT_CHUNK = re.compile(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_CUT_OGG = re.compile(r"lacks an end-of-stream bit|Junk after the last page")
_STREAMED = 0xFFFFFFFF  # a WAV written to a pipe states this length: unknown, not missing

_KEPT = SoundCache(limit=256 * 2**20)


@dataclass(frozen=True, eq=False)
class Audio:
    """Decoded sound.

    Attributes:
        samples: float32 ``[n]``, mono, finite, n > 0; read-only, because sounds are kept and shared.
        rate: samples per second.
        sha256: of samples and rate: the same sound has the same hash whatever its file is called.
        notes: what was done to it on the way, e.g. ``"resampled from 44100 Hz"``.
    """

    samples: np.ndarray
    rate: int
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def load_audio(
    source: AudioSource | None,
    rate: int | None = None,
    audio_root: str | Path | None = None,
    item: str = "",
) -> Audio:
    """Decode ``source`` to mono float32 at ``rate``.

    Args:
        source: a path, or ``(samples, rate)`` with samples ``[n]`` or ``[n, channels]``, floats or integers.
        rate: wanted rate in Hz; ``None``: its own.
        audio_root: if given, relative paths start here and none may lead out of it, be it by ``..``, by a
            symbolic link or by being absolute: a benchmark from the net must not read the rest of the disk.
        item: the item's id, for the error.

    Raises:
        ItemError: field ``"audio"``: missing, empty, undecodable, truncated, without samples, not finite, or
            outside ``audio_root``.
    """
    if source is None:
        raise ItemError(item, "audio", "there is none.", "Give a path or (samples, rate).")
    if isinstance(source, tuple):
        return _prepared(*_from_array(*source, item), rate, item)
    path = find_audio(source, audio_root, item)
    file = path.stat()
    key = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, rate)
    return _KEPT.get(key, lambda: _prepared(*_from_file(path, item), rate, item))


def _prepared(samples: np.ndarray, own_rate: int, rate: int | None, item: str) -> Audio:
    """Samples ``[n, channels]`` checked, mixed down, resampled and hashed."""
    if not len(samples):
        raise ItemError(item, "audio", "it holds no samples (0 s).")
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise ItemError(item, "audio", f"{bad} of its {samples.size} samples are NaN or infinite.")

    notes = []
    if samples.shape[1] > 1:
        notes.append(f"mixed down from {samples.shape[1]} channels")
    mono = samples.mean(axis=1, dtype=np.float32)
    if rate is not None and rate != own_rate:
        notes.append(f"resampled from {own_rate} Hz")
        mono, own_rate = soxr.resample(mono, own_rate, rate), rate
        if not len(mono):
            raise ItemError(item, "audio", f"{len(samples)} samples are too few to resample to {rate} Hz.")
    mono.flags.writeable = False
    digest = hashlib.sha256(mono.tobytes() + str(own_rate).encode()).hexdigest()
    return Audio(mono, own_rate, digest, tuple(notes))


def find_audio(source: str | Path, audio_root: str | Path | None, item: str) -> Path:
    """The file that ``source`` names, which is there and not outside ``audio_root``; else an ItemError."""
    try:
        root = None if audio_root is None else Path(audio_root).expanduser().resolve()
        path = Path(source).expanduser() if root is None else (root / source).resolve()
        there = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a null byte, a loop of links, ...
        raise ItemError(item, "audio", f"{str(source)!r} is no usable path: {error}") from error
    if root is not None and not path.is_relative_to(root):
        problem = f"{str(source)!r} leads out of audio_root {str(root)!r}."
        raise ItemError(item, "audio", problem, "Put the file inside, or choose another audio_root.")
    if not there:
        raise ItemError(item, "audio", f"no such file: {str(path)!r}.")
    return path


def _from_file(path: Path, item: str) -> tuple[np.ndarray, int]:
    """Samples ``[n, channels]`` of a file and its rate."""
    if path.stat().st_size == 0:
        raise ItemError(item, "audio", f"{str(path)!r} is empty (0 bytes).")
    try:
        with soundfile.SoundFile(path) as file:
            stated, log, own_rate = file.frames, file.extra_info, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise ItemError(item, "audio", f"{str(path)!r} cannot be decoded: {error}") from error
    cut_chunk = any(_STREAMED > int(said) > int(there) for said, there in _CUT_CHUNK.findall(log))
    if cut_chunk or _CUT_OGG.search(log) or len(samples) < stated:
        seconds = len(samples) / own_rate
        raise ItemError(item, "audio", f"{str(path)!r} is truncated: it ends after {seconds:.2f} s.")
    return samples, own_rate


def _from_array(samples: np.ndarray, rate: int, item: str) -> tuple[np.ndarray, int]:
    """Samples ``[n, channels]`` in float32 and their rate; full scale of integers becomes -1..1."""
    if not rate > 0:
        raise ItemError(item, "audio", f"its rate is {rate} Hz.", "Give (samples, rate), the rate in Hz.")
    samples = np.asarray(samples)
    shape, dtype = samples.shape, samples.dtype
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or samples.shape[1] > max(len(samples), 1):
        raise ItemError(item, "audio", f"its samples have shape {shape}.", "Give [n] or [n, channels].")
    if dtype.kind in "iu":
        half = 2.0 ** (8 * dtype.itemsize - 1)
        samples = samples / half - (1.0 if dtype.kind == "u" else 0.0)  # unsigned ones have silence at half
    elif dtype.kind != "f":
        raise ItemError(item, "audio", f"its samples are {dtype}.", "Give floats or integers.")
    return samples.astype(np.float32), int(rate)
