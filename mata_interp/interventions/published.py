"""The layers that MATA's papers edit, in a model of any depth: one definition for every command and page.

arXiv 2509.18816 and Interspeech 2026 #1212 edit layers 10-20 of their 7B models, picked by hand. Qwen2.5-Omni
7B has 28 decoder layers and Qwen2-Audio 7B has 32; the papers do not say whether layer 20 is one of them.
"""

from __future__ import annotations

from typing import Any

from mata_interp.errors import ArgumentError, unknown_name

__all__ = ["published_convention", "published_layers"]

CONVENTIONS = ("absolute", "relative")
ENDS = ("inclusive", "exclusive")
FIRST, LAST, DEPTH = 10, 20, 28
PAPER_DEPTHS = (28, 32)  # where the papers' own numbers apply as they stand


def published_layers(model: Any, convention: str | None = None, end: str = "inclusive") -> tuple[int, ...]:
    """The layers that MATA's papers edit, for this model.

    Args:
        model: an LALM, or a number of decoder layers. In a model where some layers have no attention, the
            layers with attention are counted.
        convention: ``"absolute"``, layers 10 to 20 as they stand; ``"relative"``, the same part of the depth,
            10/28 to 21/28 (20/28 with an exclusive end), at least one layer. None: absolute at 28 and 32
            layers, the depths of the papers' models, and relative elsewhere.
        end: whether layer 20 is one of them, ``"inclusive"`` or ``"exclusive"``.

    Raises:
        ArgumentError: a convention or end that does not exist, or a model without layers 10 to 20.

    Example:
        >>> published_layers(28) == published_layers(32) == tuple(range(10, 21))
        True
        >>> published_layers(32, "relative", end="exclusive")[-1]
        22
        >>> published_layers(8)
        (3, 4, 5)
    """
    layers = _attention_layers(model)
    first, stop = _bounds(len(layers), _convention(len(layers), convention), end)
    return tuple(layers[first:stop])


def published_convention(model: Any, convention: str | None = None, end: str = "inclusive") -> str:
    """How `published_layers` finds them, in words, for records and pages.

    Args:
        model, convention, end: those of `published_layers`.

    Example:
        >>> published_convention(32)
        'absolute: layers 10-20, end inclusive'
        >>> published_convention(8)
        'relative: 10/28 to 21/28 of 8 layers, end inclusive'
    """
    count = len(_attention_layers(model))
    convention = _convention(count, convention)
    _bounds(count, convention, end)
    if convention == "absolute":
        return f"absolute: layers {FIRST}-{LAST if end == 'inclusive' else LAST - 1}, end {end}"
    stop = LAST + (end == "inclusive")
    return f"relative: {FIRST}/{DEPTH} to {stop}/{DEPTH} of {count} layers, end {end}"


def _attention_layers(model: Any) -> tuple[int, ...]:
    if isinstance(model, int):
        if model < 1:
            raise ArgumentError(f"A model with {model} layers has no published layers.")
        return tuple(range(model))
    return tuple(model.attention_layers)


def _convention(count: int, convention: str | None) -> str:
    if convention is None:
        return "absolute" if count in PAPER_DEPTHS else "relative"
    if convention not in CONVENTIONS:
        raise ArgumentError(unknown_name("convention", convention, CONVENTIONS))
    return convention


def _bounds(count: int, convention: str, end: str) -> tuple[int, int]:
    """The first layer and the one after the last."""
    if end not in ENDS:
        raise ArgumentError(unknown_name("end", end, ENDS))
    stop = LAST + (end == "inclusive")
    if convention == "absolute":
        if count < stop:
            raise ArgumentError(f"No layers {FIRST}-{LAST} in {count} layers: use convention='relative'.")
        return FIRST, stop
    first = round(FIRST / DEPTH * count)
    return first, max(round(stop / DEPTH * count), first + 1)
