"""All configurations of one batch of prompts as rows over one reading of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mata_interp.interventions import Mata
from mata_interp.lalm import LALM, Prompt, Reading

from .answers import Answers
from .blocks import blocks, rows_that_fit
from .editing import TreeEditing
from .tree import grow

__all__ = ["CANARY", "sweep_prompt"]

CANARY = {torch.float32: 2e-5, torch.float64: 2e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far the unedited row's logits may be from the plain forward's, as a part of the largest logit.

float32: what reordered sums of a decoder make. bfloat16, float16: some steps of their last bit, whose size is
2 ** -8 and 2 ** -11 of a number.
"""

_HEAD = 64 << 20  # numbers of logits at once


def sweep_prompt(
    lalm: LALM,
    prompt: Prompt,
    options: Sequence[Sequence[Sequence[int]]] | None,
    configurations: Sequence[tuple[Mata, ...]],
) -> tuple[np.ndarray, float]:
    """Every configuration on one batch of B prompts.

    Args:
        options: of each prompt, its options' tokens; None: the logits of the next token are wanted.

    Returns:
        [B, configurations, C] log p of options (float64, NaN where there is none), or [B, configurations,
        vocab] logits (float32); and how far the unedited row was from the plain forward, as a part of its
        largest logit.

    Raises:
        ModelError: the model cannot run rows over a shared past.
    """
    prompt = lalm.place(prompt)
    reading = lalm.read(prompt)
    answers = Answers(prompt.inputs["input_ids"][:, -1], options or [[]] * prompt.size)
    slots = answers.slots
    size = rows_that_fit(
        prompt.inputs["input_ids"].device,
        prompt.size,
        max(lalm.anatomy.heads.values()),
        slots.tokens.shape[1],
        prompt.width + slots.tokens.shape[1],
    )
    found, off = [], 0.0
    for block in blocks(configurations, size):
        with_canary = [(), *block]
        levels, places = grow(with_canary, lalm.attention_layers)
        edit = TreeEditing(levels, with_canary, prompt.groups, slots)
        parents = {
            layer: torch.tensor(level.parents, device=lalm.device)
            for layer, level in levels.items()
            if level.branches
        }
        hidden = reading.rows(slots, parents, edit)  # (B, N, S, d)
        plain = reading.head(hidden[:, places[0], :1])[:, 0].float()
        off = max(off, _distance(plain, reading.logits.float()))
        ends = torch.tensor(places[1:], device=hidden.device)
        nodes, back = ends.unique(return_inverse=True)
        hidden = hidden.index_select(1, nodes)
        if options is None:
            values = np.concatenate([x.cpu().numpy() for x in _logits(reading, hidden[:, :, :1])], 1)[:, :, 0]
        else:
            values = answers.logprob(_asked(reading, hidden, answers))
        found.append(values[:, back.cpu().numpy()])
    return np.concatenate(found, 1), off


def _distance(ours: Tensor, plain: Tensor) -> float:
    """Largest difference as a part of the largest logit; infinite where ours is no number."""
    far = float((ours - plain).abs().max() / plain.abs().max())
    return far if np.isfinite(far) else float("inf")


def _logits(reading: Reading, hidden: Tensor):
    """Logits float32 [B, n, S, V] of [B, N, S, d], a few variants at a time."""
    batch, count, width, _ = hidden.shape
    size = max(1, _HEAD // (batch * width * reading.logits.shape[-1]))
    for part in blocks(range(count), size):
        some = hidden[:, part[0] : part[-1] + 1]
        yield reading.head(some.flatten(1, 2)).float().unflatten(1, (len(part), width))


def _asked(reading: Reading, hidden: Tensor, answers: Answers) -> np.ndarray:
    """log p of every token asked for: float64 [N, asked]."""
    rows, _, slots, tokens = torch.tensor(answers.asked, device=hidden.device).T
    found = []
    for logits in _logits(reading, hidden):
        asked = logits.log_softmax(-1)[rows, :, slots, tokens]  # (asked, n)
        found.append(asked.T.double().cpu().numpy())
    return np.concatenate(found)
