"""What is known of each planted model, and which clips a draw holds.

``measured.json`` holds the truth of every planted model, measured by `support.blindness` on confirmation
clips before any method saw it. ``effects.npz`` holds what the deciding criteria say of each selection clip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mata_interp.fusion.share_window import WORTH
from mata_interp.ranges import brief, layers_in, runs
from mata_interp.seeding import named_generator
from support.blindness import Truth

if TYPE_CHECKING:
    from .sources import Spec

__all__ = [
    "CLIPS",
    "DRAWS",
    "EFFECTS",
    "MEASURED",
    "POOL",
    "KnownModel",
    "draw_clips",
    "parse_window",
    "read_known",
]

HERE = Path(__file__).parent
MEASURED, EFFECTS = HERE / "measured.json", HERE / "effects.npz"
POOL = 200  # selection clips that draws are made from
CLIPS = (12, 24, 50, 100)  # numbers of clips of a draw
DRAWS = 200  # draws of each planted model and number of clips


@dataclass(frozen=True)
class KnownModel:
    """A planted model and its truth.

    Attributes:
        name, role, num_layers: as in its specification.
        planted: the layers that it was trained to read in.
        layers: the truth that windows are scored against: layers that count at least a fifth of what the one
            that counts most does. A layer counts the mean of its cost and its gain.
        unclear: layers for which the interval of what they count includes that fifth.
        cost: fall of the margin when text is kept from the audio in one layer, relative to ``total``.
        gain: rise of the margin when text is kept from the audio in all layers but one, not in all, relative
            to ``total``.
        total: fall of the margin when text is kept from the audio in all layers, nats, and its interval.
        accuracy: fraction of right answers without ablation, and its interval.
    """

    name: str
    role: str
    num_layers: int
    planted: tuple[int, ...]
    layers: tuple[int, ...]
    unclear: tuple[int, ...]
    cost: tuple[float, ...]
    gain: tuple[float, ...]
    total: tuple[float, float, float]
    accuracy: tuple[float, float, float]

    @property
    def counts(self) -> np.ndarray:
        """What each layer counts, [layers]: the mean of its cost and its gain, relative to ``total``."""
        return np.mean([self.cost, self.gain], axis=0)

    @property
    def runs(self) -> list[tuple[int, int]]:
        """First and last layer of each run of the truth, pooled as the rule pools its window: a gap of one
        layer is filled if the interval of what that layer counts reaches a fifth (it is ``unclear``)."""
        filled = [layer for layer in self.unclear if layer - 1 in self.layers and layer + 1 in self.layers]
        return runs(sorted({*self.layers, *filled}))

    @classmethod
    def from_truth(cls, spec: Spec, truth: Truth) -> KnownModel:
        """From a measured truth. Without an effect of the audio there are no layers."""
        most = truth.counts.max()
        unclear = (most > 0) & (truth.low < WORTH * most) & (truth.high >= WORTH * most)
        return cls(
            spec.name,
            spec.role,
            spec.num_layers,
            spec.fusion_layers,
            truth.layers,
            tuple(np.flatnonzero(unclear).tolist()),
            tuple(np.round(truth.cost, 4).tolist()),
            tuple(np.round(truth.gain, 4).tolist()),
            truth.total,
            truth.accuracy,
        )

    def to_dict(self) -> dict[str, Any]:
        """As an entry of a file."""
        entry = dict(vars(self))
        for key in ("planted", "layers", "unclear"):
            entry[key] = brief(entry[key]) or "none"
        for key in ("cost", "gain", "total", "accuracy"):
            entry[key] = [round(float(x), 4) for x in entry[key]]
        return entry

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> KnownModel:
        """From an entry of a file."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        for key in ("planted", "layers", "unclear"):
            fields[key] = parse_window(fields[key])
        return cls(**fields)


def parse_window(text: str) -> tuple[int, ...]:
    """Layers as on the command line; ``none`` or an empty text is the empty window."""
    return () if text.strip() in ("", "none") else layers_in(text)


def read_known(path: Path = MEASURED, role: str | None = None) -> dict[str, KnownModel]:
    """Name -> planted model with its truth; of one role, or of all."""
    entries = json.loads(path.read_text())["models"] if path.exists() else []
    known = [KnownModel.from_dict(entry) for entry in entries]
    return {model.name: model for model in known if role in (None, model.role)}


def draw_clips(model: str, clips: int, draw: int, pool: int = POOL) -> np.ndarray:
    """Which of a model's selection clips a draw holds: ``clips`` different numbers below ``pool``, sorted.

    Args:
        model: name of the planted model.
        clips: number of clips.
        draw: number of the draw, from 0.
        pool: number of clips to draw from.
    """
    rng = named_generator(draw, f"{clips} clips of {model}")
    return np.sort(rng.choice(pool, clips, replace=False))
