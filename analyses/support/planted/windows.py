"""The recommended window on every draw of clips, in the format that is scored, and false windows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from mata_interp.fusion.boundaries import boundaries
from mata_interp.fusion.recommend import DECIDING, choose
from mata_interp.fusion.share_window import DRAWS as RESAMPLES
from mata_interp.fusion.share_window import ShareWindow
from mata_interp.ranges import brief
from mata_interp.seeding import named_generator

from .measuring import Effects
from .truths import CLIPS, DRAWS, draw_clips

__all__ = ["false_windows", "recommended_windows"]


def recommended_windows(
    effects: Mapping[str, Effects],
    sizes: Collection[int] = CLIPS,
    draws: int = DRAWS,
    resampled_draws: int = DRAWS,
) -> Iterator[dict[str, Any]]:
    """One row for each model, number of clips and draw.

    Args:
        effects: of each model.
        sizes: numbers of clips.
        draws: draws of each model and size.
        resampled_draws: of so many draws the windows are resampled, for stability and boundaries, which
            takes most of the time.
    """
    for name, measured in effects.items():
        layers = range(measured.layers.shape[2])
        for size in sizes:
            for draw in range(draws):
                chosen = draw_clips(name, size, draw, len(measured.whole))
                window = _window(measured, chosen, draw, RESAMPLES if draw < resampled_draws else 0)
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


def _window(
    measured: Effects, chosen: np.ndarray, seed: int, resamples: int = 0, sign: np.ndarray | None = None
) -> ShareWindow:
    """The window of some clips of a model, as `mata_interp.fusion_layers` recommends it."""
    sign = np.ones(len(chosen)) if sign is None else sign
    profiles = {
        name: values[chosen] * sign[:, None] for name, values in zip(DECIDING, measured.layers, strict=True)
    }
    clips, n = chosen.astype(str).tolist(), measured.layers.shape[2]
    return choose(profiles, clips, n, seed, measured.whole[chosen] * sign, resamples)[0]


def false_windows(
    effects: Mapping[str, Effects], size: int, resamples: int, seed: int = 0, signs: bool = True
) -> np.ndarray:
    """Whether clips without an effect give a window, bool [resamples].

    Each resample draws clips of one of the models, in turn.

    Args:
        effects: of each model.
        size: number of clips.
        resamples: number of resamples.
        seed: seed of the draws.
        signs: give each clip a random sign, so that no layer has an effect and the noise is that of the
            model; False for models that do not use the audio.
    """
    rng, names, flags = named_generator(seed, f"random signs {size}"), sorted(effects), []
    for number in range(resamples):
        measured = effects[names[number % len(names)]]
        chosen = rng.choice(len(measured.whole), size, replace=False)
        sign = rng.choice([-1.0, 1.0], size) if signs else None
        flags.append(bool(_window(measured, chosen, number, sign=sign).inside.any()))
    return np.array(flags)
