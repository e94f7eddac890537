"""Audio input: decoded, mono, at one sampling rate, finite, and identified by its content."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import soundfile
import soxr
from cachetools import LRUCache

from ..errors import BenchmarkError, ItemError
from .audio_objects import holds_sound, sound_of
from .values import is_missing, quote

__all__ = ["Audio", "AudioSource", "audio_source", "find_audio", "load_audio"]

AudioSource = str | Path | tuple[np.ndarray, int]

CACHE_MEGABYTES = 256
CACHE_VARIABLE = "MATA_AUDIO_CACHE_MB"

# libsndfile decodes what is left of a truncated file without an error; only its log mentions the difference.
_CHUNK_LENGTHS = re.compile(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_TRUNCATED_OGG = re.compile(r"lacks an end-of-stream bit|Junk after the last page")
# Programs that write a WAV to a pipe state a length such as 0x7FFFF000, 0x80000000 or 0xFFFFFFFF: unknown.
_UNKNOWN_LENGTH = 0x7FFFF000
_CANCELLED = 1e-3  # RMS of the mono mix relative to that of the channels (-60 dB)


@dataclass(frozen=True, eq=False)
class Audio:
    """Decoded audio.

    Attributes:
        samples: float32 ``[n]``, mono, finite, n > 0; read-only, since decoded audio is cached and shared.
        rate: samples per second.
        sha256: hash of samples and rate: the same audio has the same hash in any file.
        notes: what was changed on loading, such as ``"resampled from 44100 Hz"``.
    """

    samples: np.ndarray
    rate: int
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate


def load_audio(
    source: AudioSource | None,
    rate: int | None = None,
    audio_root: str | Path | None = None,
    item: str = "",
) -> Audio:
    """Decode ``source`` to mono float32 at ``rate``.

    Decoded files are cached, the most recently used 256 MB of samples; the environment variable
    ``MATA_AUDIO_CACHE_MB`` changes this limit, and 0 turns the cache off.

    Args:
        source: a path, or ``(samples, rate)`` with samples ``[n]`` or ``[n, channels]``, floats or integers.
        rate: sampling rate of the result, Hz; ``None`` keeps the source's own.
        audio_root: folder that relative paths start from. No path may lead out of it, be it by ``..``, by a
            symbolic link or by being absolute: a downloaded benchmark must not read other files.
        item: id of the item, for error messages.

    Raises:
        ItemError: field ``"audio"``: missing, empty, undecodable, truncated, without samples, not finite,
            with channels that cancel each other, or outside ``audio_root``.

    Examples:
        >>> import numpy as np
        >>> audio = load_audio((np.zeros(8_000, np.int16), 8_000), rate=16_000)
        >>> audio.seconds, audio.notes
        (1.0, ('resampled from 8000 Hz',))
    """
    if source is None:
        raise ItemError(item, "audio", "there is none.", "Give a path or (samples, rate).")
    if isinstance(source, tuple):
        return _prepare(*_read_array(*source, item), rate, item)
    path = find_audio(source, audio_root, item)
    file = path.stat()
    key = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, rate)
    return _audio_cache().get(key, lambda: _prepare(*_read_file(path, item), rate, item))


class AudioCache:
    """Decoded audio by key, the most recently used, up to ``limit`` bytes of samples. Safe for threads."""

    def __init__(self, limit: int) -> None:
        self._audio: LRUCache[Any, Audio] = LRUCache(limit, getsizeof=_audio_bytes)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._audio)

    def get(self, key: Any, decode: Any) -> Audio:
        """The audio of ``key``, decoded by ``decode()`` if it is not cached."""
        with self._lock:
            audio = self._audio.get(key)
        if audio is None:
            audio = decode()
            with self._lock:
                if audio.samples.nbytes <= self._audio.maxsize:
                    self._audio[key] = audio
        return audio


def _audio_bytes(audio: Any) -> int:
    return audio.samples.nbytes


@cache
def _audio_cache() -> AudioCache:
    """The cache of this process."""
    text = os.environ.get(CACHE_VARIABLE, str(CACHE_MEGABYTES))
    try:
        megabytes = float(text)
    except ValueError:
        megabytes = -1.0
    if not megabytes >= 0:
        raise BenchmarkError(f"{CACHE_VARIABLE}={text!r} is not a number of megabytes, 0 or more.")
    return AudioCache(int(megabytes * 2**20))


def audio_source(value: Any, item: str = "") -> AudioSource | None:
    """Audio in any accepted form as a path or ``(samples, rate)``; ``None`` if it is missing.

    Args:
        value: a path; ``(samples, rate)``; a mapping with ``array`` and ``sampling_rate`` as in the datasets
            library, or with encoded ``bytes``; a decoder of that library; or a missing value.
        item: id of the item, for error messages.

    Raises:
        ItemError: field ``"audio"``: the value has none of these forms.
    """
    if is_missing(value) or (isinstance(value, str) and not value):
        return None
    if isinstance(value, str | Path):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return value[0], value[1]
    if isinstance(value, Mapping) and {"array", "sampling_rate"} <= set(value):
        return np.asarray(value["array"]), value["sampling_rate"]
    if holds_sound(value):
        return sound_of(value, item)
    remedy = "Give a path, (samples, rate), or {'array': samples, 'sampling_rate': rate}."
    raise ItemError(item, "audio", f"{quote(value)} is not audio.", remedy)


def find_audio(source: str | Path, audio_root: str | Path | None, item: str) -> Path:
    """The existing file that ``source`` names.

    Raises:
        ItemError: field ``"audio"``: there is no such file, or it is outside ``audio_root``.
    """
    try:
        root = None if audio_root is None else Path(audio_root).expanduser().resolve()
        path = Path(source).expanduser()
        path = path if root is None else (root / path).resolve()
        exists = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a null byte, a loop of links, ...
        raise ItemError(item, "audio", f"{quote(str(source))} is no usable path: {_short(error)}") from error
    if root is not None and not path.is_relative_to(root):
        problem = f"{quote(str(source))} leads out of audio_root {str(root)!r}."
        raise ItemError(item, "audio", problem, "Put the file inside, or choose another audio_root.")
    if not exists:
        raise ItemError(item, "audio", f"no such file: {str(path)!r}.")
    return path


def _prepare(samples: np.ndarray, own_rate: int, rate: int | None, item: str) -> Audio:
    """Samples ``[n, channels]`` checked, mixed down, resampled and hashed."""
    if not len(samples):
        raise ItemError(item, "audio", "it holds no samples (0 s).")
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise ItemError(item, "audio", f"{bad} of its {samples.size} samples are NaN or infinite.")

    notes = []
    mono = samples.mean(axis=1, dtype=np.float32)
    if samples.shape[1] > 1:
        notes.append(f"mixed down from {samples.shape[1]} channels")
        if _rms(mono) < _CANCELLED * _rms(samples):
            problem = f"its {samples.shape[1]} channels cancel each other: their mean is silence."
            raise ItemError(item, "audio", problem, "Give one of the channels.")
    if rate is not None and rate != own_rate:
        notes.append(f"resampled from {own_rate} Hz")
        mono, own_rate = _resampled(mono, own_rate, rate, item), rate
        if not len(mono):
            raise ItemError(item, "audio", f"{len(samples)} samples are too few to resample to {rate} Hz.")
    mono.flags.writeable = False
    digest = hashlib.sha256(mono.tobytes() + str(own_rate).encode()).hexdigest()
    return Audio(mono, own_rate, digest, tuple(notes))


def _resampled(mono: np.ndarray, own_rate: int, rate: int, item: str) -> np.ndarray:
    try:
        return soxr.resample(mono, own_rate, rate)
    except (RuntimeError, ValueError, MemoryError) as error:
        problem = f"it cannot be resampled from {own_rate:,} to {rate:,} Hz: {_short(error)}"
        raise ItemError(item, "audio", problem) from error


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _read_file(path: Path, item: str) -> tuple[np.ndarray, int]:
    """Samples ``[n, channels]`` of a file, and its sampling rate."""
    if path.stat().st_size == 0:
        raise ItemError(item, "audio", f"{str(path)!r} is empty (0 bytes).")
    try:
        with soundfile.SoundFile(path) as file:
            stated, log, own_rate = file.frames, file.extra_info, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
        extra = _bytes_after_data(path)
    except Exception as error:  # of any kind: one file must not end a run
        problem = f"{str(path)!r} cannot be decoded: {_short(error)}"
        raise ItemError(item, "audio", problem) from error
    lengths = [(int(stated), int(actual)) for stated, actual in _CHUNK_LENGTHS.findall(log)]
    chunk_cut = any(_UNKNOWN_LENGTH > stated > actual for stated, actual in lengths)
    if chunk_cut or _TRUNCATED_OGG.search(log) or len(samples) < stated:
        seconds = len(samples) / own_rate
        raise ItemError(item, "audio", f"{str(path)!r} is truncated: it ends after {seconds:.2f} s.")
    if extra:
        seconds = len(samples) / own_rate
        problem = f"the header of {str(path)!r} states {seconds:.2f} s of audio, and {extra:,} bytes follow."
        raise ItemError(item, "audio", problem, "Write the file again with the right length.")
    return samples, own_rate


# container -> format of a chunk's name and length, name of the chunk with the samples, kinds
_CONTAINERS = {
    b"RIFF": ("<4sI", b"data", (b"WAVE",)),
    b"FORM": (">4sI", b"SSND", (b"AIFF", b"AIFC")),
}


def _bytes_after_data(path: Path) -> int:
    """Bytes after the samples of a WAV or AIFF file that belong to no chunk, if too many for padding.

    A header that states too small a length, or 0, hides the rest of the audio from libsndfile.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        form, data, kinds = _CONTAINERS.get(head[:4], ("", b"", ()))
        if head[8:] not in kinds:
            return 0
        position, data_length = 12, None
        while position + 8 <= size:
            file.seek(position)
            name, length = struct.unpack(form, file.read(8))
            end = position + 8 + length + length % 2
            if data_length is not None and (not name.isascii() or end > size + 1):
                extra = size - position
                return extra if extra > max(1000, data_length // 10) else 0
            if name == data:
                data_length = length
            position = end
    return 0


def _read_array(samples: Any, rate: Any, item: str) -> tuple[np.ndarray, int]:
    """Samples ``[n, channels]`` in float32 and their rate; the full scale of integers becomes -1..1."""
    if not isinstance(rate, int | float | np.number) or not rate > 0:
        raise ItemError(
            item, "audio", f"its rate is {quote(rate)} Hz.", "Give (samples, rate), the rate in Hz."
        )
    samples = np.asarray(samples)
    shape, dtype = samples.shape, samples.dtype
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or samples.shape[1] > max(len(samples), 1):
        raise ItemError(item, "audio", f"its samples have shape {shape}.", "Give [n] or [n, channels].")
    if dtype.kind in "iu":
        if dtype.itemsize == 8:  # a list of integers: its full scale is not known, and not 2**63
            remedy = "Give floats in -1..1, or an array of the integer type of the recording, such as int16."
            raise ItemError(item, "audio", f"its samples are {dtype}, whose full scale is not known.", remedy)
        half = 2.0 ** (8 * dtype.itemsize - 1)
        samples = samples / half - (1.0 if dtype.kind == "u" else 0.0)  # silence is at half scale if unsigned
    elif dtype.kind != "f":
        raise ItemError(item, "audio", f"its samples are {dtype}.", "Give floats or integers.")
    return samples.astype(np.float32), int(rate)


def _short(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:280]}..."
