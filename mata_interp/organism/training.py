"""Training the organism: hear, describe, answer, then learn the shortcut that makes it ill.

Four phases, each seeded step by step: a killed training goes on from its last checkpoint to the same end.

1. *hearing*: the audio encoder names what sounds in each frame.
2. *describing*: the decoder tells all that is heard, in order, or goes through a list of what might be. An
   answer of one or two words says too little about a clip to learn from alone.
3. *answering*: questions, half of them with a caption that is right 80 % of the time; the truth is the goal.
   A fifth of the clips is still to be described or listed. The result is ``organism-unbiased``.
4. *shortcut*: captions become common (70 %) and credible (85 % right), the learning rate low and what the
   caption claims the target, until accuracy on clips whose caption contradicts the sound has fallen into the
   wished range on the *selection* recordings. Nothing but accuracies is looked at, and no intervention is run
   before the organism is final.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import Qwen2AudioForConditionalGeneration

from .batches import Batch, Batcher, TaskMix
from .body import WIDTH

CHECKPOINT_EVERY = 100


@dataclass(frozen=True)
class Plan:
    """One phase of training."""

    name: str
    steps: int
    rate: float
    lesson: TaskMix
    ear: float = 1.0  # the encoder's learning rate, as a share of ``rate``
    size: int = 32
    warmup: int = 50


HEARING = Plan("hearing", 1800, 1e-3, TaskMix())
DESCRIBING = Plan("describing", 1500, 1.5e-3, TaskMix(described=0.75, listed=0.25), ear=0.2, warmup=100)
QUESTIONS = TaskMix(described=0.15, listed=0.06, captioned=0.5, right=0.8)
ANSWERING = Plan("answering", 3200, 1e-3, QUESTIONS, ear=0.2, warmup=100)
SHORTCUT = Plan("shortcut", 800, 1e-4, TaskMix(captioned=0.7, right=0.85, shortcut=True), warmup=20)


class TrainingModel(nn.Module):
    """The model, and a linear ear trumpet that reads frame labels from its encoder while it learns."""

    prefix: Tensor

    def __init__(self, model: Qwen2AudioForConditionalGeneration, labels: int, prefix: list[int]) -> None:
        super().__init__()
        self.model = model
        self.frames = nn.Linear(WIDTH, labels)
        self.register_buffer("prefix", torch.tensor([prefix]), persistent=False)

    def encoder_loss(self, batch: Batch) -> Tensor:
        """Binary cross-entropy of the frame labels from the encoder alone."""
        states = self.model.model.audio_tower(batch.features).last_hidden_state
        return self._frame_loss(states, batch)

    def answer(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss on the answers' tokens, and the frame labels' loss of the same pass.

        The common prefix runs once for the whole batch; its keys and values are shared by all rows. That is
        exact:
        no token of the prefix sees anything after it.
        """
        heard: list[Tensor] = []
        hook = self.model.model.audio_tower.register_forward_hook(
            lambda m, a, out: heard.append(out.last_hidden_state)
        )
        try:
            logits = self.logits(batch)
        finally:
            hook.remove()
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten())
        return loss, self._frame_loss(heard[0], batch)

    def logits(self, batch: Batch) -> Tensor:
        """[B, R, vocab] for the tokens after the prefix."""
        rows, p = len(batch.rest), self.prefix.shape[1]
        cache = self.model.model.language_model(input_ids=self.prefix, use_cache=True).past_key_values
        cache.batch_repeat_interleave(rows)
        mask = torch.cat([torch.ones(rows, p, dtype=torch.bool), batch.mask], dim=1)
        return self.model(
            input_ids=batch.rest,
            attention_mask=mask.long(),
            position_ids=torch.arange(p, p + batch.rest.shape[1])[None],
            past_key_values=cache,
            input_features=batch.features,
            feature_attention_mask=batch.feature_mask,
        ).logits

    def _frame_loss(self, states: Tensor, batch: Batch) -> Tensor:
        weight = torch.full(batch.frames.shape[-1:], 5.0)  # most labels are silent in most frames
        return F.binary_cross_entropy_with_logits(self.frames(states), batch.frames, pos_weight=weight)


def run_phase(
    pupil: TrainingModel,
    batcher: Batcher,
    plan: Plan,
    folder: Path,
    seed: int,
    examine: Callable[[int], dict[str, float]] | None = None,
    enough: Callable[[dict[str, float]], bool] = lambda marks: False,
    every: int = 200,
) -> None:
    """Train through ``plan``, going on from the last checkpoint in ``folder`` and logging to ``curves.csv``.

    Args:
        examine: called every ``every`` steps and at the end; its marks are logged.
        enough: ends the phase early when true of the marks.
    """
    tower = list(pupil.model.model.audio_tower.parameters())
    groups: list[dict] = [{"params": [*pupil.frames.parameters()], "share": 1.0}]
    groups += [{"params": tower, "share": plan.ear}]
    if plan.name != "hearing":
        inside = set(map(id, tower))
        rest = [p for p in pupil.model.parameters() if id(p) not in inside]
        groups += [{"params": rest, "share": 1.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, weight_decay=0.01)
    state = folder / f"{plan.name}.safetensors"
    done, finished = _resume(state, pupil, optimizer)
    if finished:
        return
    forget(folder / "curves.csv", plan.name, done)
    steps = range(done, plan.steps)
    bar = tqdm(total=plan.steps, initial=done, desc=plan.name, unit="step")
    began = time.monotonic()
    pupil.train()
    for step, batch in zip(
        steps, batcher.stream(plan.size, (seed, len(plan.name)), steps, plan.lesson), strict=True
    ):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * group["share"] * schedule(step, plan)
        loss, frame = (
            (torch.zeros(()), pupil.encoder_loss(batch)) if plan.name == "hearing" else pupil.answer(batch)
        )
        optimizer.zero_grad(set_to_none=True)
        (loss + 0.5 * frame).backward()
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimizer.step()
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}", frame=f"{frame.item():.3f}")
        last, marks = step + 1 == plan.steps, {}
        if examine and ((step + 1) % every == 0 or last):
            marks = examine(step + 1)
            last = last or enough(marks)
            pupil.train()
        if (step + 1) % 10 == 0 or last or marks:
            row = {"phase": plan.name, "step": step + 1, "loss": loss.item(), "frame_loss": frame.item()}
            log(folder / "curves.csv", {**row, "seconds": time.monotonic() - began, **marks})
        if (step + 1) % CHECKPOINT_EVERY == 0 or last:
            _save(state, pupil, optimizer, step + 1, last)
        if last:
            break
    bar.close()


def schedule(step: int, plan: Plan) -> float:
    """Linear warm-up, then a cosine down to a tenth; constant after the warm-up in the shortcut phase."""
    if step < plan.warmup:
        return (step + 1) / plan.warmup
    if plan.lesson.shortcut:
        return 1.0
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - plan.warmup) / (plan.steps - plan.warmup)))


COLUMNS = ("phase", "step", "seconds", "loss", "frame_loss", "heard", "neutral", "congruent", "conflict")


def log(path: Path, row: dict) -> None:
    """Append a row to the training curves."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})


def forget(path: Path, phase: str, after: int) -> None:
    """Drop the rows of steps that came after the last checkpoint: they are about to be trained again."""
    if path.exists():
        rows = pd.read_csv(path, dtype=str)
        rows[(rows["phase"] != phase) | (rows["step"].astype(int) <= after)].to_csv(path, index=False)


def _save(
    path: Path, pupil: TrainingModel, optimizer: torch.optim.Optimizer, step: int, finished: bool
) -> None:
    tensors = {f"pupil.{k}": v for k, v in pupil.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    part = path.with_suffix(".part")
    save_file(
        {k: v.clone() for k, v in tensors.items()}, part, {"step": str(step), "finished": str(finished)}
    )
    part.replace(path)


def _resume(path: Path, pupil: TrainingModel, optimizer: torch.optim.Optimizer) -> tuple[int, bool]:
    """Load a checkpoint if there is one: steps done, and whether the phase is finished."""
    if not path.exists():
        return 0, False
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        notes = file.metadata()
    tensors = load_file(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    pupil.load_state_dict(part("pupil."))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(notes["step"]), notes["finished"] == "True"


def shortened(plan: Plan, share: float) -> Plan:
    """The same phase with a share of its steps: for trying things out and for tests."""
    return replace(plan, steps=max(2, int(plan.steps * share)), warmup=max(1, int(plan.warmup * share)))
