"""The recommended window: which layers to give to MATA, by causal criteria before attention.

The rule was fixed before it was tried on a model whose fusion layers are known:

1. Two causal criteria are used, both about where text (the last token included) reads the audio:
   ``knockout_text``, which hides the audio, and ``restoration_audio``, which replaces it with another clip.
   Hiding can hurt because attention must then fall elsewhere, and two clips can be too similar: each
   criterion has what the other lacks.
2. If either shows no effect of the audio on the answer (interval above 0, at least 0.1 nats), there is no
   window.
3. Otherwise a layer's share is the mean of its two shares, and the rules of `mata_interp.fusion.windows` say
   which layers are in the window.
4. If more than four fifths of the layers are in it, the audio is read everywhere, fusion is not concentrated,
   and there is no window.
5. If one of the two could not be measured, the other decides alone. If neither could, saliency of the text
   and of the last token takes their place, and the summary says that it is not causal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .windows import MIN_EFFECT, Draws, above_noise, effect_is_real

__all__ = ["CAUSES", "SPREAD", "STAND_INS", "Choice", "choose"]

CAUSES = ("knockout_text", "restoration_audio")
STAND_INS = ("saliency_text", "saliency_last")
SPREAD = 0.8


@dataclass(frozen=True, eq=False)
class Choice:
    """The recommended window and what it rests on.

    Attributes:
        inside: the window, bool [n].
        resampled: the window of each resample, bool [D, n].
        share: share of each layer in the effect of the audio, mean over the deciding criteria, [n].
        criteria: names of the deciding criteria.
        verdict: ``"found"``, ``"no effect"``, ``"spread"``, ``"noise"`` (an effect of some size, but neither
            the effect nor any layer's part in it stands out from the noise) or ``"nothing measured"``.
    """

    inside: np.ndarray
    resampled: np.ndarray
    share: np.ndarray
    criteria: tuple[str, ...]
    verdict: str


def choose(draws: Mapping[str, Draws], n: int) -> Choice:
    """Choose a window.

    Args:
        draws: of each criterion that was measured, means and resamples.
        n: number of layers.

    >>> choose({}, n=4).verdict
    'nothing measured'
    """
    causes = tuple(name for name in CAUSES if name in draws)
    deciding = causes or tuple(name for name in STAND_INS if name in draws)
    if not deciding:
        return Choice(np.zeros(n, bool), np.zeros((0, n), bool), np.zeros(n), (), "nothing measured")
    empty, none_resampled = np.zeros(n, bool), np.zeros(draws[deciding[0]][1].shape, bool)
    share = np.mean([_share(draws[name][0]) for name in deciding], axis=0)
    totals = {name: float(draws[name][0].sum()) for name in causes}
    unreal = [total for name, total in totals.items() if not effect_is_real(total, draws[name][1].sum(1))]
    if unreal:
        verdict = "no effect" if min(unreal) < MIN_EFFECT else "noise"
        return Choice(empty, none_resampled, share, deciding, verdict)
    shares_resampled = np.mean([_share(draws[name][1]) for name in deciding], axis=0)
    inside, resampled = above_noise(share, shares_resampled)
    resampled &= (resampled.sum(1) <= SPREAD * n)[:, None]
    if inside.sum() > SPREAD * n:
        return Choice(empty, none_resampled, share, deciding, "spread")
    return Choice(inside, resampled, share, deciding, "found" if inside.any() else "noise")


def _share(parts: np.ndarray) -> np.ndarray:
    """Parts [..., n] divided by their sum; zeros where there is no effect."""
    total = parts.sum(-1, keepdims=True)
    return parts / np.where(total > 0, total, np.inf)
