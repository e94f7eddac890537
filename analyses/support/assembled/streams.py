"""Independent random streams, each seeded by its name."""

from __future__ import annotations

import numpy as np

from mata_interp.seeding import named_generator

__all__ = ["stream"]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator of the stream ``names``.

    Two streams of different names are independent; the same names and seed always give the same numbers.

    Args:
        seed: seed of the whole build.
        names: what the stream is for, e.g. ``("clip", "test", 12)``.
    """
    return named_generator(seed, "\x1f".join(map(str, names)))
