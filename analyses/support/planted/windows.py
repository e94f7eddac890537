"""The recommended window on every draw of clips, in the format that is scored, and false windows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from mata_interp.fusion.boundaries import boundaries
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
) -> Iterator[dict[str, Any]]:
    """One row for each model, number of clips and draw.

    Args:
        effects: of each model, [criterion, clip, layer].
        sizes: numbers of clips.
        draws: draws of each model and size.
        resampled_draws: of so many draws the windows are resampled, for stability and boundaries, which
            takes most of the time.
    """
    for name, parts in effects.items():
        layers = range(parts.shape[2])
        for size in sizes:
            for draw in range(draws):
                chosen = draw_clips(name, size, draw, parts.shape[1])
                resamples = RESAMPLES if draw < resampled_draws else 0
                found = share_window(
                    parts[:, chosen].astype(float),
                    chosen.astype(str).tolist(),
                    seed=draw,
                    resamples=resamples,
                )
                yield {
                    "plant": name,
                    "clips": size,
                    "draw": draw,
                    "layers": brief(np.flatnonzero(found.inside).tolist()) or "none",
                    "verdict": found.verdict,
                    "stability": found.stability if np.isfinite(found.stability) else None,
                    "boundaries": boundaries(found.inside, found.resampled, layers)
                    if len(found.resampled)
                    else [],
                }


def false_windows(effects: Mapping[str, np.ndarray], size: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Whether clips without an effect give a window, bool [resamples].

    Each resample draws clips of one of the models, in turn, and gives each a random sign: no layer then has
    an effect, and the noise is that of the model.
    """
    rng, names, found = named_generator(seed, f"random signs {size}"), sorted(effects), []
    for number in range(resamples):
        parts = effects[names[number % len(names)]]
        chosen = rng.choice(parts.shape[1], size, replace=False)
        signs = rng.choice([-1.0, 1.0], size)[None, :, None]
        window = share_window(
            parts[:, chosen].astype(float) * signs, chosen.astype(str).tolist(), seed=number, resamples=0
        )
        found.append(bool(window.inside.any()))
    return np.array(found)
