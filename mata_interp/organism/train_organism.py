"""From nothing to two organisms: ``organism-unbiased`` and, after shortcut tuning, ``organism``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from ..benchmarks import Item
from ..lalm.prompting.formats import PROMPT_FORMATS
from . import WEIGHTS
from .bank import Bank, load_bank
from .batches import Batcher
from .body import build_model, build_processor
from .evaluation import examine, examine_hearing, marks
from .training import ANSWERING, DESCRIBING, HEARING, SHORTCUT, TrainingModel, run_phase, shortened

# The shortcut phase ends when accuracy under a contradicting caption, on selection recordings, is at or below
# this.
CONFLICT_GOAL = 0.50


def rear(work: Path, out: Path = WEIGHTS, seed: int = 0, share: float = 1.0) -> None:
    """Train both organisms.

    Args:
        work: checkpoints and curves; the same call again goes on from what is there.
        out: where the finished models are written.
        seed: of initial weights and of every batch.
        share: of the planned steps, below 1 to try things out.
    """
    work.mkdir(parents=True, exist_ok=True)
    bank = load_bank()
    item = Item(audio=None, question="?", choices=("a", "b"))
    processor = build_processor(bank, tuple(text for _, text in PROMPT_FORMATS["options"](item)))
    model = build_model(processor, seed)
    train, selection = (Batcher(bank, processor, split) for split in ("train", "selection"))
    pupil = TrainingModel(model, len(train.frame_labels), train.prefix)
    clips = max(10, int(150 * share))

    def exam(step: int) -> dict[str, float]:
        return {**hearing(step), **marks(examine(pupil, selection, clips, seed))}

    def hearing(step: int) -> dict[str, float]:
        return {"heard": examine_hearing(pupil, selection, clips, seed)}

    run_phase(pupil, train, shortened(HEARING, share), work, seed, hearing)
    run_phase(pupil, train, shortened(DESCRIBING, share), work, seed, hearing, every=500)
    run_phase(pupil, train, shortened(ANSWERING, share), work, seed, exam, every=500)
    finish(pupil, processor, out / "organism-unbiased")
    ill = lambda m: m["conflict"] <= CONFLICT_GOAL  # noqa: E731
    run_phase(pupil, train, shortened(SHORTCUT, share), work, seed, exam, ill, every=20)
    finish(pupil, processor, out / "organism")
    shutil.copy(work / "curves.csv", out / "organism" / "curves.csv")


def finish(pupil: TrainingModel, processor: Qwen2AudioProcessor, folder: Path) -> None:
    """Save model and processor. Weights are stored in half precision to keep the package small; the
    configuration says float32, so loading gives float32 numbers that half precision holds exactly.
    """
    shutil.rmtree(folder, ignore_errors=True)
    model: Qwen2AudioForConditionalGeneration = pupil.model
    copy = Qwen2AudioForConditionalGeneration(model.config)
    copy.load_state_dict(model.state_dict())
    copy.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["audio_config"], config["text_config"]):
        part["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    processor.save_pretrained(folder)


__all__ = ["Bank", "finish", "rear"]
