"""Layers that a study does not choose itself, and what is known about where they come from."""

from __future__ import annotations

from collections.abc import Iterable

from ..fusion import FusionProfile
from ..interventions import AttentionEdit
from .study_result import LayerOrigin
from .validation import ValidatedItems

__all__ = ["layer_origin"]


def layer_origin(
    layers: Iterable[int] | FusionProfile,
    mata: AttentionEdit,
    selection: ValidatedItems,
    test: ValidatedItems,
) -> LayerOrigin:
    """Where a study's layers come from, and which of its own clips they were chosen on.

    Args:
        layers: The ``layers`` argument of `study`.
        mata: A configuration with these layers, which carries the clips that they were chosen on.
        selection, test: The study's items for choosing and for testing.
    """
    clips = set(mata.chosen_on)
    return LayerOrigin(
        layers=tuple(mata.layers),
        profile_model=layers.model if isinstance(layers, FusionProfile) else None,
        clips=len(clips),
        selection_clips=len(clips & selection.clusters),
        test_clips=len(clips & test.clusters),
    )
