"""Sets of layers as short text and back, for every label, message, page and command."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .errors import ArgumentError

__all__ = ["brief", "layer_range", "layers_in", "named_layers", "runs"]

DASH = "\u2013"


def runs(layers: Iterable[int]) -> list[tuple[int, int]]:
    """Runs of consecutive whole numbers, first and last of each: ``(3, 4, 5, 9)`` -> ``[(3, 5), (9, 9)]``."""
    result: list[tuple[int, int]] = []
    for layer in sorted(set(layers)):
        if result and layer == result[-1][1] + 1:
            result[-1] = (result[-1][0], layer)
        else:
            result.append((layer, layer))
    return result


def brief(layers: Iterable[int]) -> str:
    """Short text, as the command line takes it: ``(3, 4, 5, 9)`` -> ``3-5,9``; an empty set -> ``""``."""
    return ",".join(_texts(layers, "-"))


def layers_in(text: str) -> tuple[int, ...]:
    """The layers in a text such as `brief` writes: ``3-5,9`` -> ``(3, 4, 5, 9)``; ranges include both ends.

    Raises:
        ArgumentError: a part is neither a layer nor a range, or a range ends before it begins.
    """
    layers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise ArgumentError(f"{part.strip()!r} is neither a layer nor a range such as 3-5.")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first:
            raise ArgumentError(f"{part.strip()!r} ends before it begins.")
        layers.update(range(first, last + 1))
    return tuple(sorted(layers))


def layer_range(layers: Iterable[int]) -> str:
    """Text for a sentence: ``(3, 4, 5, 9)`` -> ``3–5, 9``; an empty set -> ``none``."""
    return ", ".join(_texts(layers, DASH)) or "none"


def named_layers(layers: Iterable[int]) -> str:
    """``layer 3``, ``layers 3–5``, ``no layers``."""
    chosen = set(layers)
    return f"layer{'s' * (len(chosen) > 1)} {layer_range(chosen)}" if chosen else "no layers"


def _texts(layers: Iterable[int], dash: str) -> list[str]:
    return [str(first) if first == last else f"{first}{dash}{last}" for first, last in runs(layers)]
