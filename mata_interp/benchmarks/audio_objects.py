"""Sound in the objects of other libraries: encoded bytes, and decoders of the datasets library."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile

from ..errors import ItemError
from .values import is_missing

__all__ = ["holds_sound", "sound_of"]


def holds_sound(value: Any) -> bool:
    """Whether it is ``{"bytes": encoded, "path": path}``, as in the datasets library, or a decoder."""
    encoded = isinstance(value, Mapping) and {"bytes", "path"} <= set(value)
    return encoded or hasattr(value, "get_all_samples")


def sound_of(value: Any, item: str) -> Any:
    """A path, or ``(samples, rate)``, of an object that `holds_sound`; None if the sound is missing.

    Args:
        value: the object; a decoder, of torchcodec or of the datasets library, is read whole.
        item: id of the item, for error messages.

    Raises:
        ItemError: field ``"audio"``: the bytes, or what the decoder reads, cannot be decoded.
    """
    if isinstance(value, Mapping):
        return _from_bytes(value["bytes"], value["path"], item)
    return _from_decoder(value, item)


def _from_bytes(data: Any, path: Any, item: str) -> Any:
    if is_missing(data):
        return None if is_missing(path) else path
    try:
        samples, rate = soundfile.read(io.BytesIO(bytes(data)), dtype="float32")
    except (soundfile.SoundFileError, RuntimeError, MemoryError, TypeError, ValueError) as error:
        problem = f"its {len(data):,} bytes cannot be decoded: {str(error)[:200]}"
        raise ItemError(item, "audio", problem) from error
    return samples, rate


def _from_decoder(decoder: Any, item: str) -> tuple[np.ndarray, int]:
    try:
        samples = decoder.get_all_samples()
    except Exception as error:  # of many kinds, those of FFmpeg among them
        raise ItemError(item, "audio", f"its decoder fails: {str(error)[:200]}") from error
    return np.asarray(samples.data).T, int(samples.sample_rate)  # torchcodec gives [channels, n]
