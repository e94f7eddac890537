"""Arrays as short text for a page: uint8, compressed (raw deflate), base64."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

__all__ = ["pack_attention", "pack_bytes", "pack_media", "unpack_attention"]


def pack_bytes(data: bytes) -> str:
    """Compressed and in base64."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)  # raw, which browsers inflate
    return base64.b64encode(squeezer.compress(data) + squeezer.flush()).decode()


def pack_attention(mass: np.ndarray) -> dict[str, Any]:
    """Attention [conditions, layers, heads, bins] as ``{shape, scale, data}``.

    A byte b stands for scale (b / 255)^2, so that the error is at most scale / 255, and smaller where
    attention is. The order is [layers, heads, conditions, bins]: below the edited layers all conditions are
    equal, and equal rows side by side compress to nothing.

    Args:
        mass: From 0; NaN, a head that a layer does not have, becomes 0.
    """
    ordered = np.nan_to_num(np.moveaxis(np.asarray(mass, dtype=np.float64), 0, 2))
    scale = float(ordered.max(initial=0.0))
    levels = np.round(255 * np.sqrt(ordered / (scale or 1.0))).astype(np.uint8)
    return {"shape": list(ordered.shape), "scale": scale, "data": pack_bytes(levels.tobytes())}


def unpack_attention(packed: dict[str, Any]) -> np.ndarray:
    """Attention [conditions, layers, heads, bins] of `pack_attention`, as the page reads it."""
    levels = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"]), -15), np.uint8)
    values = packed["scale"] * (levels.reshape(packed["shape"]) / 255.0) ** 2
    return np.moveaxis(values, 2, 0)


def pack_media(peaks: np.ndarray, spectrogram: np.ndarray, top_hz: float) -> dict[str, Any]:
    """Waveform and spectrogram; arguments as in `ItemRecording`."""
    return {
        "shape": list(spectrogram.shape),
        "top_hz": top_hz,
        "data": pack_bytes(np.ascontiguousarray(spectrogram).tobytes()),
        "peaks": pack_bytes(np.ascontiguousarray(peaks).tobytes()),
    }
