"""The recommended window: which layers to give to MATA, by causal criteria before attention.

Two causal criteria decide, both about where text (the last token included) reads the audio:
``knockout_text_single``, what it costs to hide the audio in one layer, and ``knockout_text_others``, what the
audio gives back in one layer when it is hidden in all others. The first finds layers that the model needs,
the second layers that suffice. Each misses what the other finds: of two layers of which either suffices,
neither is needed, and of two layers that need each other, neither suffices (Heimersheim & Nanda 2024, arXiv
2404.15255). What a layer counts is the mean of the two, in nats: the two ends of what hiding it can cost, of
which its Shapley value is the mean over all sets of other hidden layers. The whole effect is what hiding the
audio in all layers costs.
`mata_interp.fusion.share_window` says which layers are in the window, or that there are too few clips.

Hiding can hurt because attention must then fall elsewhere. Criteria that replace the audio with another
clip's, ``restoration_audio`` first of all, do not have this fault, and show where a model reads that could
also read elsewhere. They do not decide; the summary says where they differ.

If the two were not both measured, the mean of ``knockout_text`` and ``restoration_audio`` decides, or the one
of them that was. If none of these was, saliency of the text and of the last token takes their place, and the
summary says that it is not causal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .share_window import DRAWS, MIN_EFFECT, ShareWindow, nothing_measured, share_window

__all__ = ["DECIDING", "IN_ORDER", "STAND_INS", "choose"]

DECIDING = ("knockout_text_single", "knockout_text_others")
IN_ORDER = ("knockout_text", "restoration_audio")
STAND_INS = ("saliency_text", "saliency_last")


def choose(
    profiles: Mapping[str, np.ndarray],
    clusters: Sequence[str],
    n: int,
    seed: int = 0,
    effect: np.ndarray | None = None,
    resamples: int = DRAWS,
) -> tuple[ShareWindow, tuple[str, ...]]:
    """Choose a window.

    Args:
        profiles: of each criterion that was measured, float64 [item, n]. Items with NaN in a deciding
            criterion are left out.
        clusters: cluster (clip) of each item.
        n: number of layers.
        seed: seed of the bootstrap.
        effect: what it costs to hide the audio from all text in all layers, nats, float64 [item], if
            measured.
        resamples: number of resamples whose windows are found for stability and boundaries.

    Returns:
        the window and what it rests on, and the names of the criteria that decided.

    Examples:
        >>> window, deciding = choose({}, [], n=4)
        >>> window.verdict, deciding
        ('nothing measured', ())
    """
    if effect is not None and all(name in profiles for name in DECIDING):
        counts = np.mean([profiles[name] for name in DECIDING], axis=0)
        return share_window(
            counts[None], clusters, seed=seed, resamples=resamples, whole=effect[None]
        ), DECIDING
    causes = tuple(name for name in IN_ORDER if name in profiles)
    names = causes or tuple(name for name in STAND_INS if name in profiles)
    if not names:
        return nothing_measured(n), ()
    parts = np.array([profiles[name] for name in names])
    return share_window(parts, clusters, MIN_EFFECT if causes else None, seed, resamples), names
