"""Layers that a study is given instead of choosing them, and what is known of how they came about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..fusion import FusionProfile
from ..interventions import AttentionEdit
from .validation import ValidatedItems

__all__ = ["origin"]


def origin(
    layers: Iterable[int] | FusionProfile, mata: AttentionEdit, known: ValidatedItems, held: ValidatedItems
) -> dict[str, Any]:
    """Which layers were given, by whom, and which of a study's own clips they were chosen on.

    Args:
        layers: as they were given; ``mata`` edits them.
        known, held: the study's items for choosing and for testing.

    Returns:
        ``found_in``, the model whose `FusionProfile` they are, None for layers by hand; ``clips``, how many
        those were chosen on, as far as is known; ``selection_clips`` and ``test_clips``, how many of them are
        among the study's own.
    """
    clips = set(mata.chosen_on)
    return {
        "layers": list(mata.layers),
        "found_in": layers.model if isinstance(layers, FusionProfile) else None,
        "clips": len(clips),
        "selection_clips": len(clips & known.clusters),
        "test_clips": len(clips & held.clusters),
    }
