"""Independent random streams, each seeded by its name."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["stream"]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator of the stream ``names``.

    Two streams of different names are independent; the same names and seed always give the same numbers.

    Args:
        seed: seed of the whole build.
        names: what the stream is for, e.g. ``("clip", "test", 12)``.
    """
    digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])
