"""Which layers to give to MATA, by causes before attention.

The rule, fixed before it was tried on a model whose fusion layers are known:

1. Two causes are looked at, both about where text (the last token among it) reads the sound:
   ``knockout_text``, which hides the sound, and ``restoration_audio``, which puts another in its place.
   Hiding may hurt because attention must then fall elsewhere, and two sounds may be too much alike: each has
   what the other lacks.
2. If either shows no effect of the sound on the answer (interval above 0, 0.1 nats at least), there is no
   fusion and no window.
3. Else a layer's share is the mean of its two shares, and the rules of `mata_interp.fusion.windows` say which
   layers are in.
4. If more than four fifths of the layers are in, the sound is read everywhere, fusion is not concentrated,
   and there is no window.
5. Where one of the two could not be measured, the other decides alone. Where neither could, saliency of the
   text and of the last token takes their place, and is said to be no cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .windows import EFFECT, Draws, above_noise, effect_is_real

__all__ = ["CAUSES", "SPREAD", "STAND_INS", "Choice", "choose"]

CAUSES = ("knockout_text", "restoration_audio")
STAND_INS = ("saliency_text", "saliency_last")
SPREAD = 0.8


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen.

    Attributes:
        inside: bool [n], the window.
        drawn: bool [D, n], that of each resample.
        share: [n], of each layer in the effect of the sound, mean of the causes.
        on: the criteria that decided.
        verdict: ``"found"``, ``"no effect"``, ``"spread"``, ``"noise"`` (an effect of some size, but neither
            it nor a layer's part in it stands out from the noise) or ``"nothing measured"``.
    """

    inside: np.ndarray
    drawn: np.ndarray
    share: np.ndarray
    on: tuple[str, ...]
    verdict: str


def choose(draws: Mapping[str, Draws], n: int) -> Choice:
    """From the criteria's means and resamples over ``n`` layers."""
    causes = tuple(name for name in CAUSES if name in draws)
    on = causes or tuple(name for name in STAND_INS if name in draws)
    if not on:
        return Choice(np.zeros(n, bool), np.zeros((0, n), bool), np.zeros(n), (), "nothing measured")
    nowhere = np.zeros(n, bool), np.zeros(draws[on[0]][1].shape, bool)
    real = [effect_is_real(float(draws[c][0].sum()), draws[c][1].sum(1)) for c in causes]
    share = np.mean([_share(draws[name][0]) for name in on], axis=0)
    unreal = [float(draws[c][0].sum()) for c, is_real in zip(causes, real, strict=True) if not is_real]
    if unreal:
        return Choice(*nowhere, share, on, "no effect" if min(unreal) < EFFECT else "noise")
    each = np.mean([_share(draws[name][1]) for name in on], axis=0)
    inside, drawn = above_noise(share, each)
    drawn &= (drawn.sum(1) <= SPREAD * n)[:, None]
    if inside.sum() > SPREAD * n:
        return Choice(*nowhere, share, on, "spread")
    return Choice(inside, drawn, share, on, "found" if inside.any() else "noise")


def _share(parts: np.ndarray) -> np.ndarray:
    """Of parts [..., n], each over their sum; zeros where there is no effect."""
    total = parts.sum(-1, keepdims=True)
    return parts / np.where(total > 0, total, np.inf)
