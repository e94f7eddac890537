"""Evaluation of the organism during training: accuracy by kind of question and by caption condition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from .batches import Batcher, TaskMix
from .questions import CONDITIONS, KINDS, make_question
from .scenes import Mixer
from .training import TrainingModel

# Stream numbers, kept so that the shipped weights can be rebuilt: the shortcut phase ends by these
# accuracies.
QUESTION_STREAM = 77
FRAME_STREAM = 78


@torch.inference_mode()
def evaluate(model: TrainingModel, batcher: Batcher, clips: int, seed: int) -> pd.DataFrame:
    """Answer one question about each clip, under three caption conditions.

    The answer is the option with the largest summed log-probability.

    Args:
        model: the model in training.
        batcher: batcher of the split to evaluate on.
        clips: number of clips.
        seed: of clips, questions and captions.

    Returns:
        One row for each clip and condition, with the columns ``kind``, ``condition``, ``correct`` and
        ``chance`` (1 / number of options).
    """
    model.eval()
    rng = np.random.default_rng((seed, QUESTION_STREAM))
    mixer = Mixer(batcher.bank, batcher.split, rng)
    rows = []
    for i in range(clips):
        kind = KINDS[i % len(KINDS)]
        scene = mixer.scene(kind)
        question = make_question(kind, scene, batcher.bank, rng)
        congruent = question.caption(question.answer, rng)
        conflict = question.caption(question.wrong_option(rng), rng)
        captions = ["", congruent, conflict]
        texts = [batcher.prompt_text(caption, question) for caption in captions for _ in question.choices]
        batch = batcher.collate([scene] * len(texts), texts, list(question.choices) * len(captions))
        logp = model.logits(batch)[:, :-1].log_softmax(-1)  # (rows, R - 1, vocabulary)
        labels = batch.labels[:, 1:]
        token_logp = logp.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        option_logp = token_logp.masked_fill(labels < 0, 0).sum(-1)
        chosen = option_logp.view(len(captions), -1).argmax(-1)
        correct = chosen == question.choices.index(question.answer)
        chance = 1 / len(question.choices)
        rows += [(kind, c, bool(r), chance) for c, r in zip(CONDITIONS, correct, strict=True)]
    return pd.DataFrame(rows, columns=["kind", "condition", "correct", "chance"])


@torch.inference_mode()
def frame_accuracy(model: TrainingModel, batcher: Batcher, clips: int, seed: int) -> float:
    """Accuracy of the frame labels on frames with exactly one sound event, word or note.

    Only the encoder and the linear layer on it are evaluated. Chance is 1 / number of events and words.

    Args:
        model: the model in training.
        batcher: batcher of the split to evaluate on.
        clips: number of clips.
        seed: of the clips.
    """
    model.eval()
    batch = batcher.batch(clips, (seed, FRAME_STREAM), TaskMix())
    count = len(batcher.bank.labels) + len(batcher.bank.words)
    states = model.model.model.audio_tower(batch.features).last_hidden_state
    logits = model.frame_head(states)[..., :count]
    target = batch.frame_labels[..., :count]
    single = target.sum(-1) == 1
    return float((logits.argmax(-1) == target.argmax(-1))[single].float().mean())


def accuracies(table: pd.DataFrame) -> dict[str, float]:
    """Accuracy by caption condition, from the table of `evaluate`."""
    return {str(name): float(np.mean(rows)) for name, rows in table.groupby("condition")["correct"]}
