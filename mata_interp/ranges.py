"""Layers told briefly: unbroken runs of whole numbers."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["runs"]


def runs(layers: Iterable[int]) -> list[tuple[int, int]]:
    """Unbroken runs of whole numbers, first and last of each: ``(3, 4, 5, 9)`` -> ``[(3, 5), (9, 9)]``."""
    found: list[tuple[int, int]] = []
    for layer in sorted(set(layers)):
        if found and layer == found[-1][1] + 1:
            found[-1] = (found[-1][0], layer)
        else:
            found.append((layer, layer))
    return found
