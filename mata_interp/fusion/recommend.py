"""The recommended window: which layers to give to MATA, by causal criteria before attention.

Two causal criteria decide, both about where text (the last token included) reads the audio:
``knockout_text``, which hides the audio, and ``restoration_audio``, which replaces it with another clip.
Hiding can hurt because attention must then fall elsewhere, and two clips can be too similar: each criterion
has what the other lacks.
A layer's share of the effect is the mean of its shares by the two. Both give a share to every layer that
could do the work, also to one whose work other layers do as well; ``knockout_text_single``, which hides the
audio in one layer alone, says whether the model needs it, and layers that it does not need are left out.
`mata_interp.fusion.share_window` says which layers are in the window, or that there are too few clips.

If one of the two could not be measured, the other decides alone. If neither could, saliency of the text and
of the last token takes their place, and the summary says that it is not causal. If the layers were not hidden
alone, the shares decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .share_window import MIN_EFFECT, ShareWindow, nothing_measured, share_window

__all__ = ["ALONE", "CAUSES", "STAND_INS", "choose"]

CAUSES = ("knockout_text", "restoration_audio")
ALONE = "knockout_text_single"
STAND_INS = ("saliency_text", "saliency_last")


def choose(
    profiles: Mapping[str, np.ndarray], clusters: Sequence[str], n: int, seed: int = 0
) -> tuple[ShareWindow, tuple[str, ...]]:
    """Choose a window.

    Args:
        profiles: of each criterion that was measured, float64 [item, n]. Items with NaN in a deciding
            criterion are left out.
        clusters: cluster (clip) of each item.
        n: number of layers.
        seed: seed of the bootstrap.

    Returns:
        the window and what it rests on, and the names of the criteria that decided.

    Examples:
        >>> window, deciding = choose({}, [], n=4)
        >>> window.verdict, deciding
        ('nothing measured', ())
    """
    causes = tuple(name for name in CAUSES if name in profiles)
    deciding = causes or tuple(name for name in STAND_INS if name in profiles)
    if not deciding:
        return nothing_measured(n), ()
    parts = np.array([profiles[name] for name in deciding])
    alone = profiles.get(ALONE) if causes else None
    return share_window(parts, clusters, MIN_EFFECT if causes else None, seed, alone=alone), deciding
