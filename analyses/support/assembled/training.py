"""Train low-rank changes of the decoder, whose projector is aligned, on questions and descriptions alone.

No lesson contains a caption, true or false. A stopped training continues from its last checkpoint to the same
end: batch and questions of a step depend on seed and step alone.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .adapter import add_low_rank
from .clips import Segment
from .features import EncodedClips
from .progress import Progress
from .prompts import Decoder, Row
from .questions import ask, describe, option_text
from .streams import stream

Labels = Mapping[str, Sequence[str]]  # role -> every label

__all__ = ["Plan", "descend", "losses_of_answers", "train", "validation_accuracy"]

COLUMNS = ("step", "lessons", "learning_rate", "loss", "validation_accuracy")
VALIDATION_BATCH = 10
VALIDATED = 60  # clips of a validation during training
CHECKPOINT_EVERY = 20  # steps
STRIDE = 3  # of the audio tokens in lessons, which halves their time
END_WEIGHT = 0.2  # of the token that ends an answer, in the loss; the other tokens have 1
# Shares of the kinds of lessons: descriptions, questions without options, and questions with options.
FIRST_LESSONS = {"description": 0.05, "open": 0.6, "options": 0.35}
LATER_LESSONS = {"description": 0.05, "open": 0.1, "options": 0.85}


@dataclass(frozen=True)
class Plan:
    """How the training goes.

    Attributes:
        steps: number of steps.
        batch: lessons per step.
        learning_rate: at its highest.
        rank: of the changes of the decoder's matrices.
        warmup: steps in which the rate rises from 0.
        fall: step at which it begins to fall, in a straight line.
        zero: step at which it would be 0.
        validate_every: steps between two validations.
        first: number of steps, at the beginning, with mostly questions without options.
    """

    steps: int = 340
    batch: int = 8
    learning_rate: float = 3e-3
    rank: int = 4
    warmup: int = 10
    fall: int = 200
    zero: int = 400
    validate_every: int = 120
    first: int = 70

    def factor(self, step: int) -> float:
        """Return the share of the highest learning rate at a step: a rise, a plateau and a linear fall."""
        left = (self.zero - step) / (self.zero - self.fall)
        return min(1.0, (step + 1) / self.warmup, left)


class Lessons:
    """Draw the lessons of every step.

    Args:
        decoder: tokenizes.
        clips: the training clips.
        labels: role -> every label, for wrong options.
        plan: batch and number of first lessons.
        seed: seed of the build.
    """

    def __init__(self, decoder: Decoder, clips: EncodedClips, labels: Labels, plan: Plan, seed: int) -> None:
        self.decoder, self.clips, self.labels, self.plan, self.seed = decoder, clips, labels, plan, seed

    def batch(self, step: int) -> tuple[Tensor, list[Row]]:
        """Return features [batch, audio tokens, width] and rows of a step, all of one kind of lesson."""
        rng = stream(self.seed, "lessons", step)
        shares = FIRST_LESSONS if step < self.plan.first else LATER_LESSONS
        kind = str(rng.choice(list(shares), p=list(shares.values())))
        chosen = rng.choice(len(self.clips), self.plan.batch, replace=False)
        rows = [self._lesson(self.clips.segments[index], kind, rng) for index in chosen]
        features = self.clips.features[torch.from_numpy(chosen)].float()
        return features[:, int(rng.integers(STRIDE)) :: STRIDE], rows

    def _lesson(self, segments: Sequence[Segment], kind: str, rng: np.random.Generator) -> Row:
        if kind == "description":
            return self.decoder.row(*describe(segments, rng))
        question = ask(segments, self.labels, rng)
        text = option_text(question) if kind == "options" else question.text
        return self.decoder.row(text, question.answer)


@torch.no_grad()
def validation_accuracy(
    decoder: Decoder, clips: EncodedClips, labels: Labels, count: int, seed: int
) -> float:
    """Return the share of questions answered rightly, by the first token in which the options differ.

    Args:
        decoder: the model.
        clips: clips of the selection split, one question each.
        labels: role -> every label.
        count: number of clips, the first ones.
        seed: seed of the build.
    """
    right = 0
    for first in range(0, count, VALIDATION_BATCH):
        chosen = range(first, min(first + VALIDATION_BATCH, count))
        rows, options, answers = [], [], []
        for index in chosen:
            question = ask(clips.segments[index], labels, stream(seed, "validation", index))
            tokens = [decoder.ids(choice) for choice in question.choices]
            same = next(n for n in range(99) if len({tuple(one[: n + 1]) for one in tokens}) > 1)
            prompt = decoder.row(option_text(question), "").prompt
            rows.append(Row(prompt + tokens[0][:same], [0]))
            options.append([one[same] for one in tokens])
            answers.append(question.choices.index(question.answer))
        logits = decoder.answer_logits(clips.features[list(chosen)].float(), rows)
        for row, tokens, answer in zip(logits, options, answers, strict=True):
            right += int(row[0][tokens].argmax()) == answer
    return right / count


@dataclass
class _State:
    """What a checkpoint holds: parameters, the optimizer's moments, and the step reached."""

    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    step: int = 0

    def save(self, path: Path) -> None:
        tensors = {}
        for index, parameter in enumerate(self.parameters):
            tensors[f"{index}.value"] = parameter.detach()
            for name, value in self.optimizer.state[parameter].items():
                tensors[f"{index}.{name}"] = torch.as_tensor(value)
        partial = path.with_suffix(".partial")
        save_file({name: t.contiguous() for name, t in tensors.items()}, partial, {"step": str(self.step)})
        partial.replace(path)

    def load(self, path: Path) -> None:
        with safe_open(path, "pt") as stored:
            self.step = int(stored.metadata()["step"])
        tensors = load_file(path)
        for index, parameter in enumerate(self.parameters):
            state = {
                name.partition(".")[2]: tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{index}.")
            }
            with torch.no_grad():
                parameter.copy_(state.pop("value"))
            self.optimizer.state[parameter] = state


def train(
    decoder: Decoder,
    clips: tuple[EncodedClips, EncodedClips],
    labels: tuple[Labels, Labels],
    plan: Plan,
    seed: int,
    folder: Path,
) -> None:
    """Train; afterwards ``decoder.model`` holds the result.

    Args:
        decoder: the model, its projector aligned.
        clips: training and validation clips.
        labels: of both, role -> every label.
        plan: how.
        seed: seed of the build.
        folder: for checkpoint.safetensors and losses.csv; training continues from a checkpoint in it.
    """
    low_rank = add_low_rank(decoder.model.requires_grad_(False), plan.rank, seed)
    lessons = Lessons(decoder, clips[0], labels[0], plan, seed)
    descend(
        low_rank,
        plan,
        lambda step: answer_loss(decoder, *lessons.batch(step)),
        lambda: validation_accuracy(decoder, clips[1], labels[1], VALIDATED, seed),
        folder,
    )


def descend(
    parameters: list[nn.Parameter],
    plan: Plan,
    loss: Callable[[int], Tensor],
    accuracy: Callable[[], float],
    folder: Path,
) -> None:
    """Lower a loss step by step.

    Args:
        parameters: what is trained.
        plan: number of steps, learning rate, and when to validate.
        loss: the loss of a step, given its number; it must depend on that number and the parameters alone.
        accuracy: measured at the steps of the plan, for the loss curve.
        folder: for checkpoint.safetensors and losses.csv; training continues from a checkpoint in it.
    """
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0)
    state = _State(parameters, optimizer)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists():
        state.load(checkpoint)
    losses: list[float] = []
    with Progress("training", plan.steps - state.step) as progress:
        while state.step < plan.steps:
            rate = plan.factor(state.step)
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * rate
            losses.append(_step(optimizer, parameters, loss(state.step)))
            state.step += 1
            progress.advance(note=f"loss {np.mean(losses[-20:]):.3f}")
            if state.step % CHECKPOINT_EVERY == 0 or state.step == plan.steps:
                validated = accuracy() if state.step % plan.validate_every == 0 else math.nan
                _append(folder / "losses.csv", plan, state.step, rate, losses, validated)
                state.save(checkpoint)
                losses.clear()


def _step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], loss: Tensor) -> float:
    """One step of the optimizer; returns the loss."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item()


def answer_loss(decoder: Decoder, features: Tensor, rows: Sequence[Row]) -> Tensor:
    """The mean loss of the answers of a batch."""
    return losses_of_answers(decoder.answer_logits(features, rows), rows).mean()


def losses_of_answers(logits: Sequence[Tensor], rows: Sequence[Row]) -> Tensor:
    """The loss of each answer, [rows], from the logits that predict its tokens."""
    return torch.stack([_answer_loss(*pair) for pair in zip(logits, rows, strict=True)])


def _answer_loss(logits: Tensor, row: Row) -> Tensor:
    """Cross-entropy of one answer, a weighted mean over its tokens."""
    losses = F.cross_entropy(logits, torch.tensor(row.answer), reduction="none")
    weights = torch.ones_like(losses)
    weights[-1] = END_WEIGHT
    return (losses * weights).sum() / weights.sum()


def _append(path: Path, plan: Plan, step: int, rate: float, losses: list[float], accuracy: float) -> None:
    """Add a line to the loss curve."""
    new = not path.exists()
    values = (step, step * plan.batch, rate * plan.learning_rate, float(np.mean(losses)), accuracy)
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([f"{value:.6g}" for value in values])
