"""Measure a planted model once: the truth on confirmation clips, the criteria on selection clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import mata_interp as mi
from mata_interp.fusion.recommend import ALONE, CAUSES
from mata_interp.organism.bank import load_bank
from mata_interp.organism.planted_growth import GrownModelSpec
from mata_interp.organism.planted_questions import planted_items
from support.blindness import blindness

from .truths import EFFECTS, MEASURED, POOL, KnownModel, read_known

__all__ = ["TRUTH_CLIPS", "load_effects", "measure_effects", "measure_truth", "store_effects", "store_truth"]

TRUTH_CLIPS = 400
DECIDING = (*CAUSES, ALONE)


def measure_truth(lalm: mi.LALM, spec: GrownModelSpec, clips: int = TRUTH_CLIPS) -> KnownModel:
    """The truth of a planted model, by ablation in its own eager attention."""
    items = planted_items(load_bank(), "confirmation", clips)
    return KnownModel.from_truth(spec, blindness(lalm, items))


def measure_effects(lalm: mi.LALM, clips: int = POOL) -> np.ndarray:
    """What each clip says of each layer by the criteria that decide the window: [criterion, clip, layer].

    These are the two criteria whose shares decide, and the cost of hiding each layer alone.
    """
    items = planted_items(load_bank(), "selection", clips)
    profile = mi.fusion_layers(lalm, items, criteria=DECIDING, progress=False)
    return profile.profiles.sel(criterion=list(DECIDING)).values


def store_truth(known: KnownModel, path: Path = MEASURED) -> None:
    """Write or replace one model's entry of ``measured.json``."""
    models = {**read_known(path), known.name: known}
    about = "Truth of each planted model by ablation in eager attention; written by analyses/planted_set.py."
    entries = [json.dumps(model.to_dict()) for model in models.values()]
    path.write_text(f'{{"about": {json.dumps(about)},\n"models": [\n' + ",\n".join(entries) + "\n]}\n")


def store_effects(name: str, effects: np.ndarray, path: Path = EFFECTS) -> None:
    """Write or replace one model's effects, float16 [criterion, clip, layer]."""
    stored = load_effects(path)
    stored[name] = effects.astype(np.float16)
    with path.open("wb") as file:
        np.savez_compressed(file, **stored)  # type: ignore[arg-type]


def load_effects(path: Path = EFFECTS) -> dict[str, np.ndarray]:
    """Name -> effects [criterion, clip, layer] of every model that was measured."""
    if not path.exists():
        return {}
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}
