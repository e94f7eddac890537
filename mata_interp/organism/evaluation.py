"""Examining the organism while it learns: accuracy by kind of question and by caption."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from .batches import Batcher, TaskMix
from .questions import CONDITIONS, KINDS, ask
from .scenes import Mixer
from .training import TrainingModel


@torch.inference_mode()
def examine(pupil: TrainingModel, batcher: Batcher, clips: int, seed: int) -> pd.DataFrame:
    """Answer ``clips`` questions under all three captions by the options' summed log-probability.

    Returns one row a clip and condition: kind, condition, correct, and chance (1 / number of options).
    """
    pupil.eval()
    rng = np.random.default_rng((seed, 77))
    mixer = Mixer(batcher.bank, batcher.split, rng)
    rows = []
    for i in range(clips):
        kind = KINDS[i % len(KINDS)]
        scene = mixer.scene(kind)
        question = ask(kind, scene, batcher.bank, rng)
        captions = ["", question.caption(question.answer, rng), question.caption(question.wrong(rng), rng)]
        texts = [batcher.text(c, question) for c in captions for _ in question.choices]
        batch = batcher.collate([scene] * len(texts), texts, list(question.choices) * len(captions))
        logp = pupil.logits(batch)[:, :-1].log_softmax(-1)
        labels = batch.labels[:, 1:]
        told = logp.gather(-1, labels.clamp(min=0)[..., None])[..., 0].masked_fill(labels < 0, 0).sum(-1)
        chosen = told.view(len(captions), -1).argmax(-1)
        right = chosen == question.choices.index(question.answer)
        chance = 1 / len(question.choices)
        rows += [(kind, c, bool(r), chance) for c, r in zip(CONDITIONS, right, strict=True)]
    return pd.DataFrame(rows, columns=["kind", "condition", "correct", "chance"])


@torch.inference_mode()
def examine_hearing(pupil: TrainingModel, batcher: Batcher, clips: int, seed: int) -> float:
    """Share of sounding frames in which the frame labels' ear names the right sound event, word or note best.

    Only the encoder and the linear reading of it are examined. Chance is 1 / number of events and words.
    """
    pupil.eval()
    batch = batcher.batch(clips, (seed, 78), TaskMix())
    named = len(batcher.bank.labels) + len(batcher.bank.words)
    logits = pupil.frames(pupil.model.model.audio_tower(batch.features).last_hidden_state)[..., :named]
    truth = batch.frames[..., :named]
    sounding = truth.sum(-1) == 1
    return float((logits.argmax(-1) == truth.argmax(-1))[sounding].float().mean())


def marks(table: pd.DataFrame) -> dict[str, float]:
    """Accuracy by condition."""
    return {str(name): float(np.mean(rows)) for name, rows in table.groupby("condition")["correct"]}
