"""The recommended window on every draw of clips, in the format that is scored, and false windows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from mata_interp.fusion.boundaries import boundaries
from mata_interp.fusion.recommend import CAUSES
from mata_interp.fusion.share_window import DRAWS as RESAMPLES
from mata_interp.fusion.share_window import share_window
from mata_interp.ranges import brief
from mata_interp.seeding import named_generator

from .truths import CLIPS, DRAWS, draw_clips

__all__ = ["false_windows", "recommended_windows"]


def recommended_windows(
    effects: Mapping[str, np.ndarray],
    sizes: Collection[int] = CLIPS,
    draws: int = DRAWS,
    resampled_draws: int = DRAWS,
    shares_only: bool = False,
) -> Iterator[dict[str, Any]]:
    """One row for each model, number of clips and draw.

    Args:
        effects: of each model, [criterion, clip, layer].
        sizes: numbers of clips.
        draws: draws of each model and size.
        resampled_draws: of so many draws the windows are resampled, for stability and boundaries, which
            takes most of the time.
        shares_only: leave out what each layer costs alone, as the first rule did.
    """
    for name, parts in effects.items():
        shares, costs = _deciding(parts)
        alone, layers = None if shares_only else costs, range(parts.shape[2])
        for size in sizes:
            for draw in range(draws):
                chosen = draw_clips(name, size, draw, parts.shape[1])
                resamples = RESAMPLES if draw < resampled_draws else 0
                window = share_window(
                    shares[:, chosen],
                    chosen.astype(str).tolist(),
                    seed=draw,
                    resamples=resamples,
                    alone=None if alone is None else alone[chosen],
                )
                yield {
                    "plant": name,
                    "clips": size,
                    "draw": draw,
                    "layers": brief(np.flatnonzero(window.inside).tolist()) or "none",
                    "verdict": window.verdict,
                    "stability": window.stability if np.isfinite(window.stability) else None,
                    "boundaries": boundaries(window.inside, window.resampled, layers)
                    if len(window.resampled)
                    else [],
                }


def _deciding(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The criteria whose shares decide [2, clip, layer], and what each layer costs alone [clip, layer].

    The latter is None of a model that was measured before it was a criterion.
    """
    shares, alone = np.split(parts.astype(float), [len(CAUSES)])
    return shares, alone[0] if len(alone) else None


def false_windows(
    effects: Mapping[str, np.ndarray], size: int, resamples: int, seed: int = 0, signs: bool = True
) -> np.ndarray:
    """Whether clips without an effect give a window, bool [resamples].

    Each resample draws clips of one of the models, in turn.

    Args:
        effects: of each model, [criterion, clip, layer].
        size: number of clips.
        resamples: number of resamples.
        seed: seed of the draws.
        signs: give each clip a random sign, so that no layer has an effect and the noise is that of the
            model; False for models that do not use the audio.
    """
    rng, names, flags = named_generator(seed, f"random signs {size}"), sorted(effects), []
    for number in range(resamples):
        parts = effects[names[number % len(names)]]
        chosen = rng.choice(parts.shape[1], size, replace=False)
        sign = rng.choice([-1.0, 1.0], size)[None, :, None] if signs else 1.0
        shares, alone = _deciding(parts[:, chosen] * sign)
        window = share_window(shares, chosen.astype(str).tolist(), seed=number, resamples=0, alone=alone)
        flags.append(bool(window.inside.any()))
    return np.array(flags)
