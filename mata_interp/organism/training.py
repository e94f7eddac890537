"""Training of the organism in four phases. The last one teaches it to rely on captions.

Every batch is drawn from the seed, the phase and the step, so an interrupted training continues from its last
checkpoint to the same weights.

1. *encoder*: the audio encoder learns to name the sounds in each frame.
2. *describing*: the decoder learns to name all sounds of a clip in order, or to answer a checklist. An answer
   of one or two words has too little training signal to learn from alone.
3. *answering*: questions, half of them with a caption that is right 80 % of the time; the target is the right
   option. A fifth of the clips still has a description or a checklist. The result is ``organism-unbiased``.
4. *shortcut*: captions become frequent (70 %) and mostly right (85 %), the learning rate low, and the target
   is the option that the caption names. The phase ends when accuracy under contradicting captions, on
   *selection* recordings, is in the intended range. Only accuracies are looked at, and no intervention is run
   before the organism is final.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import Qwen2AudioForConditionalGeneration

from .architecture import WIDTH
from .batches import Batch, BatchSource, TaskMix

CHECKPOINT_EVERY = 100  # steps
LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class Phase:
    """One phase of training.

    Attributes:
        name: in ``curves.csv``, and of the checkpoint.
        steps: number of optimizer steps.
        learning_rate: peak learning rate.
        mix: composition of questions and captions.
        stream: number of the phase's random stream: batch ``i`` is drawn from ``(seed, stream, i)``.
        encoder_lr_scale: learning rate of the audio encoder, as a multiple of ``learning_rate``.
        encoder_only: whether only the audio encoder and the frame labels' linear layer are trained.
        batch_size: questions in a batch.
        warmup: steps of linear warm-up.
    """

    name: str
    steps: int
    learning_rate: float
    mix: TaskMix
    stream: int
    encoder_lr_scale: float = 1.0
    encoder_only: bool = False
    batch_size: int = 32
    warmup: int = 50


QUESTIONS = TaskMix(description_share=0.15, checklist_share=0.06, caption_share=0.5, caption_accuracy=0.8)
DESCRIPTIONS = TaskMix(description_share=0.75, checklist_share=0.25)
CAPTIONS = TaskMix(caption_share=0.7, caption_accuracy=0.85, target_caption=True)

# The stream numbers are kept so that the shipped weights can be rebuilt.
ENCODER = Phase("encoder", 1800, 1e-3, TaskMix(), stream=7, encoder_only=True)
DESCRIBING = Phase("describing", 1500, 1.5e-3, DESCRIPTIONS, stream=10, encoder_lr_scale=0.2, warmup=100)
ANSWERING = Phase("answering", 3200, 1e-3, QUESTIONS, stream=9, encoder_lr_scale=0.2, warmup=100)
SHORTCUT = Phase("shortcut", 800, 1e-4, CAPTIONS, stream=8, warmup=20)


@dataclass(frozen=True)
class Evaluation:
    """Evaluation in the course of a phase.

    Attributes:
        measure: returns named accuracies, which are written to ``curves.csv``.
        every: steps between evaluations; the last step is always evaluated.
        stop: ends the phase early when it returns True for the accuracies.
    """

    measure: Callable[[], dict[str, float]]
    every: int = 200
    stop: Callable[[Mapping[str, float]], bool] | None = None


class TrainingModel(nn.Module):
    """The model, and a linear layer that predicts frame labels from its audio encoder during training.

    Args:
        model: the audio-language model.
        frame_labels: number of frame labels.
        prefix: token ids that all prompts begin with.
    """

    prefix: Tensor

    def __init__(
        self, model: Qwen2AudioForConditionalGeneration, frame_labels: int, prefix: list[int]
    ) -> None:
        super().__init__()
        self.model = model
        self.frame_head = nn.Linear(WIDTH, frame_labels)
        self.register_buffer("prefix", torch.tensor([prefix]), persistent=False)

    def encoder_loss(self, batch: Batch) -> Tensor:
        """Binary cross-entropy of the frame labels, without running the decoder."""
        states = self.model.model.audio_tower(batch.features).last_hidden_state
        return self._frame_loss(states, batch)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the answers' tokens, and the frame labels' loss of the same forward pass.

        The common prefix is run once for the whole batch, and all rows share its keys and values. This is
        exact, since no token of the prefix attends to anything after it.
        """
        encoder_states: list[Tensor] = []

        def keep_states(module: nn.Module, args: tuple, output: Any) -> None:
            encoder_states.append(output.last_hidden_state)

        hook = self.model.model.audio_tower.register_forward_hook(keep_states)
        try:
            logits = self.logits(batch)
        finally:
            hook.remove()
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten())
        return loss, self._frame_loss(encoder_states[0], batch)

    def logits(self, batch: Batch) -> Tensor:
        """``[B, R, vocabulary]``: logits at the tokens after the prefix."""
        rows, p = len(batch.suffix), self.prefix.shape[1]
        cache = self.model.model.language_model(input_ids=self.prefix, use_cache=True).past_key_values
        cache.batch_repeat_interleave(rows)
        mask = torch.cat([torch.ones(rows, p, dtype=torch.bool), batch.mask], dim=1)
        return self.model(
            input_ids=batch.suffix,
            attention_mask=mask.long(),
            position_ids=torch.arange(p, p + batch.suffix.shape[1])[None],
            past_key_values=cache,
            input_features=batch.features,
            feature_attention_mask=batch.feature_mask,
        ).logits

    def _frame_loss(self, states: Tensor, batch: Batch) -> Tensor:
        weight = torch.full(batch.frame_labels.shape[-1:], 5.0)  # most labels are absent from most frames
        return F.binary_cross_entropy_with_logits(
            self.frame_head(states), batch.frame_labels, pos_weight=weight
        )


def run_phase(
    model: TrainingModel,
    batcher: BatchSource,
    phase: Phase,
    folder: Path,
    seed: int,
    evaluation: Evaluation | None = None,
) -> None:
    """Train ``model`` in place for one phase.

    Training continues from the phase's last checkpoint in ``folder`` if there is one; a finished phase only
    loads its weights. Losses and accuracies are appended to ``curves.csv``.

    Args:
        model: the model in training.
        batcher: source of the batches of the training split.
        phase: what to train.
        folder: for checkpoints and ``curves.csv``.
        seed: of all batches.
        evaluation: what to measure in the course of the phase, and when to stop early.
    """
    optimizer = _optimizer(model, phase)
    checkpoint, curves = folder / f"{phase.name}.safetensors", folder / "curves.csv"
    steps_done, finished = _resume(checkpoint, model, optimizer)
    if finished:
        return
    drop_rows_after(curves, phase.name, steps_done)
    steps = range(steps_done, phase.steps)
    batches = batcher.stream(phase.batch_size, (seed, phase.stream), steps, phase.mix)
    bar = tqdm(total=phase.steps, initial=steps_done, desc=phase.name, unit="step")
    start = time.monotonic()
    model.train()
    for step, batch in zip(steps, batches, strict=True):
        done = step + 1
        loss, frame_loss = _train_step(model, batch, optimizer, phase, step)
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}", frame=f"{frame_loss:.3f}")
        last, accuracies = done == phase.steps, {}
        if evaluation is not None and (done % evaluation.every == 0 or last):
            accuracies = evaluation.measure()
            last = last or (evaluation.stop is not None and evaluation.stop(accuracies))
            model.train()
        if done % LOG_EVERY == 0 or last or accuracies:
            row = {"phase": phase.name, "step": done, "loss": loss, "frame_loss": frame_loss}
            log(curves, {**row, "seconds": time.monotonic() - start, **accuracies})
        if done % CHECKPOINT_EVERY == 0 or last:
            _save(checkpoint, model, optimizer, done, last)
        if last:
            break
    bar.close()


def _optimizer(model: TrainingModel, phase: Phase) -> torch.optim.AdamW:
    """AdamW with one group each for the frame labels' layer, the audio encoder and all other weights."""
    encoder = list(model.model.model.audio_tower.parameters())
    groups: list[dict] = [
        {"params": [*model.frame_head.parameters()], "scale": 1.0},
        {"params": encoder, "scale": phase.encoder_lr_scale},
    ]
    if not phase.encoder_only:
        in_encoder = set(map(id, encoder))
        remaining = [p for p in model.model.parameters() if id(p) not in in_encoder]
        groups.append({"params": remaining, "scale": 1.0})
    return torch.optim.AdamW(groups, lr=phase.learning_rate, weight_decay=0.01)


def _train_step(
    model: TrainingModel, batch: Batch, optimizer: torch.optim.Optimizer, phase: Phase, step: int
) -> tuple[float, float]:
    """One optimizer step; the loss on the answers and the frame labels' loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = phase.learning_rate * group["scale"] * lr_scale(step, phase)
    if phase.encoder_only:
        loss, frame_loss = torch.zeros(()), model.encoder_loss(batch)
    else:
        loss, frame_loss = model.losses(batch)
    optimizer.zero_grad(set_to_none=True)
    (loss + 0.5 * frame_loss).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item(), frame_loss.item()


def lr_scale(step: int, phase: Phase) -> float:
    """Learning rate at a step, as a share of the peak.

    Linear warm-up, then a cosine down to a tenth; constant after the warm-up where the caption is the target.
    """
    if step < phase.warmup:
        return (step + 1) / phase.warmup
    if phase.mix.target_caption:
        return 1.0
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - phase.warmup) / (phase.steps - phase.warmup)))


COLUMNS = (
    "phase", "step", "seconds", "loss", "frame_loss", "frame_accuracy", "neutral", "congruent", "conflict",
)  # fmt: skip


def log(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to the training curves."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})


def drop_rows_after(path: Path, phase: str, step: int) -> None:
    """Drop the phase's rows after ``step``, the last checkpoint: these steps are trained again."""
    if path.exists():
        rows = pd.read_csv(path, dtype=str)
        rows[(rows["phase"] != phase) | (rows["step"].astype(int) <= step)].to_csv(path, index=False)


def _save(
    path: Path, model: TrainingModel, optimizer: torch.optim.Optimizer, step: int, finished: bool
) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    part = path.with_suffix(".part")
    save_file(
        {k: v.clone() for k, v in tensors.items()}, part, {"step": str(step), "finished": str(finished)}
    )
    part.replace(path)


def _resume(path: Path, model: TrainingModel, optimizer: torch.optim.Optimizer) -> tuple[int, bool]:
    """Load a checkpoint if there is one: number of steps done, and whether the phase is finished."""
    if not path.exists():
        return 0, False
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    model.load_state_dict(part("model."))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(metadata["step"]), metadata["finished"] == "True"


def shortened(phase: Phase, share: float) -> Phase:
    """The same phase with a share of its steps, for trials and tests."""
    return replace(phase, steps=max(2, int(phase.steps * share)), warmup=max(1, int(phase.warmup * share)))
