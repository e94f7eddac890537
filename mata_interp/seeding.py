"""Random generators for named streams."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["named_generator"]


def named_generator(seed: int, name: str) -> np.random.Generator:
    """A random generator for one stream of a program, independent of its other streams.

    The generator is seeded with ``seed`` and the SHA-256 of ``name``, so that two streams with different
    names are independent, and a stream does not change when others are added.

    Args:
        seed: seed of the program, 0 or larger.
        name: name of the stream, such as ``"random layers"``.

    Examples:
        >>> named_generator(0, "item order").integers(100, size=3).tolist()
        [36, 20, 57]
        >>> named_generator(0, "bootstrap").integers(100, size=3).tolist()
        [36, 73, 71]
    """
    digest = hashlib.sha256(name.encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, len(digest), 4)]
    return np.random.default_rng((seed, *words))
