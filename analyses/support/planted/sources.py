"""Where planted models and their clips come from: grown small decoders, or a pretrained one."""

from __future__ import annotations

from pathlib import Path

from mata_interp.benchmarks import Items
from mata_interp.organism.bank import load_bank
from mata_interp.organism.planted_growth import GrownModelSpec, read_planted_set
from mata_interp.organism.planted_questions import planted_items
from support.assembled.build import Build
from support.assembled.planting import PLANTS, AssembledPlant

__all__ = ["Spec", "build", "clips_for_criteria", "clips_for_truth", "every_spec"]

Spec = GrownModelSpec | AssembledPlant
BUILD_SEED = 0  # of the assembled model that ships


def every_spec() -> dict[str, Spec]:
    """Name -> every planted model of 8, 16 and 30 layers."""
    return {**read_planted_set(), **{spec.name: spec for spec in PLANTS}}


def build(spec: Spec, work: Path, train: bool = False) -> Path:
    """The folder of a planted model, which is built if it is missing.

    Args:
        spec: the model.
        work: folder of all models and of what they are built from.
        train: train it even if its changes ship.
    """
    folder = work / "models" / spec.name
    if (folder / "config.json").exists():
        return folder
    if isinstance(spec, AssembledPlant):
        _assembled(work).write_planted(spec, folder, train)
    else:
        from mata_interp.organism.train_planted_body import build_grown_model

        build_grown_model(spec, work, folder)
    return folder


def clips_for_truth(spec: Spec, work: Path, count: int) -> Items:
    """Items that the truth is measured on."""
    if isinstance(spec, AssembledPlant):
        return _assembled(work).planted_items("test", count)
    return planted_items(load_bank(), "confirmation", count)


def clips_for_criteria(spec: Spec, work: Path, count: int) -> Items:
    """Items that criteria are measured on, of other clips and recordings than the truth's."""
    if isinstance(spec, AssembledPlant):
        return _assembled(work).planted_items("selection", count)
    return planted_items(load_bank(), "selection", count)


def _assembled(work: Path) -> Build:
    return Build(work / "assembled", BUILD_SEED)
