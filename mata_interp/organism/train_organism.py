"""Train ``organism-unbiased`` from scratch and, by shortcut tuning, ``organism``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from ..benchmarks import Item
from ..lalm.prompting.formats import PROMPT_FORMATS
from . import WEIGHTS
from .architecture import build_model, build_processor
from .bank import load_bank
from .batches import Batcher
from .evaluation import accuracies, evaluate, frame_accuracy
from .training import (
    ANSWERING,
    DESCRIBING,
    ENCODER,
    SHORTCUT,
    Evaluation,
    TrainingModel,
    run_phase,
    shortened,
)

__all__ = ["save_trained", "train_organism"]

# The shortcut phase ends when accuracy under contradicting captions, on selection recordings, is at most
# this.
CONFLICT_GOAL = 0.50


def train_organism(work: Path, out: Path = WEIGHTS, seed: int = 0, share: float = 1.0) -> None:
    """Train both organisms and save them. The same call again continues an interrupted training.

    Args:
        work: folder of checkpoints and curves.
        out: folder that the finished models are written into.
        seed: of the initial weights and of every batch.
        share: share of the planned steps; below 1 for trials.
    """
    work.mkdir(parents=True, exist_ok=True)
    bank = load_bank()
    item = Item(audio=None, question="?", choices=("a", "b"))
    processor = build_processor(bank, tuple(text for _, text in PROMPT_FORMATS["options"](item)))
    train, selection = (Batcher(bank, processor, split) for split in ("train", "selection"))
    model = TrainingModel(build_model(processor, seed), len(train.frame_label_names), train.prefix)
    clips = max(10, int(150 * share))

    def measure_encoder() -> dict[str, float]:
        return {"frame_accuracy": frame_accuracy(model, selection, clips, seed)}

    def measure_all() -> dict[str, float]:
        return {**measure_encoder(), **accuracies(evaluate(model, selection, clips, seed))}

    def goal_reached(measured: Mapping[str, float]) -> bool:
        return measured["conflict"] <= CONFLICT_GOAL

    encoder = Evaluation(measure_encoder)
    answers = Evaluation(measure_all, every=500)
    run_phase(model, train, shortened(ENCODER, share), work, seed, encoder)
    run_phase(model, train, shortened(DESCRIBING, share), work, seed, replace(encoder, every=500))
    run_phase(model, train, shortened(ANSWERING, share), work, seed, answers)
    save_trained(model, processor, out / "organism-unbiased")
    shortcut = Evaluation(measure_all, every=20, stop=goal_reached)
    run_phase(model, train, shortened(SHORTCUT, share), work, seed, shortcut)
    save_trained(model, processor, out / "organism")
    shutil.copy(work / "curves.csv", out / "organism" / "curves.csv")


def save_trained(model: TrainingModel, processor: Qwen2AudioProcessor, folder: Path) -> None:
    """Save a model in training and its processor, see `save_model`."""
    save_model(model.model, processor, folder)


def save_model(
    model: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor, folder: Path
) -> None:
    """Save model and processor, replacing what ``folder`` holds.

    Weights are stored in half precision to keep the package small. The configuration names float32, so
    loading gives float32 numbers that half precision represents exactly.
    """
    shutil.rmtree(folder, ignore_errors=True)
    half = Qwen2AudioForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["audio_config"], config["text_config"]):
        part["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    processor.save_pretrained(folder)
