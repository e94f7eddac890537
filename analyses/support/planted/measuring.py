"""Measure a planted model once: the truth on confirmation clips, the criteria on selection clips."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import mata_interp as mi
from mata_interp.benchmarks import Items
from mata_interp.fusion.recommend import DECIDING
from support.blindness import blindness

from .truths import EFFECTS, MEASURED, KnownModel, read_known

if TYPE_CHECKING:
    from .sources import Spec

__all__ = [
    "TRUTH_CLIPS",
    "Effects",
    "load_effects",
    "measure_effects",
    "measure_truth",
    "store_effects",
    "store_truth",
]

TRUTH_CLIPS = 400


def measure_truth(lalm: mi.LALM, spec: Spec, items: Items) -> KnownModel:
    """The truth of a planted model, by ablation in its own eager attention."""
    return KnownModel.from_truth(spec, blindness(lalm, items))


@dataclass(frozen=True, eq=False)
class Effects:
    """What the deciding criteria say of a model.

    Attributes:
        layers: of each layer, nats [criterion, clip, layer].
        whole: what hiding the audio in all layers costs, nats [clip].
    """

    layers: np.ndarray
    whole: np.ndarray


def measure_effects(lalm: mi.LALM, items: Items) -> Effects:
    """What each clip says of each layer by the criteria that decide the window."""
    profile = mi.fusion_layers(lalm, items, criteria=DECIDING, progress=False)
    assert profile.effect is not None
    return Effects(profile.profiles.sel(criterion=list(DECIDING)).values, profile.effect.values)


def store_truth(known: KnownModel, path: Path = MEASURED) -> None:
    """Write or replace one model's entry of ``measured.json``."""
    models = {**read_known(path), known.name: known}
    about = "Truth of each planted model by ablation in eager attention; written by analyses/planted_set.py."
    entries = [json.dumps(model.to_dict()) for model in models.values()]
    path.write_text(f'{{"about": {json.dumps(about)},\n"models": [\n' + ",\n".join(entries) + "\n]}\n")


def store_effects(name: str, effects: Effects, path: Path = EFFECTS) -> None:
    """Write or replace one model's effects, as float16."""
    every = {**load_effects(path), name: effects}
    arrays = {
        f"{model} {key}": getattr(some, key).astype(np.float16)
        for model, some in every.items()
        for key in ("layers", "whole")
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_effects(path: Path = EFFECTS) -> dict[str, Effects]:
    """Name -> effects of every model that was measured."""
    if not path.exists():
        return {}
    with np.load(path) as stored:
        names = [name.removesuffix(" whole") for name in stored.files if name.endswith(" whole")]
        return {
            name: Effects(*(stored[f"{name} {key}"].astype(float) for key in ("layers", "whole")))
            for name in names
        }
