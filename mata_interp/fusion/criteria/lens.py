"""The logit lens: how far the answer can be read off the states, at the sound, at the text, at its end.

nostalgebraist 2020 puts the last norm and the output head on the states behind each layer. Kept is what each
layer adds to the margin so read. A word that can be read early has not been used early, and states may hold
what the lens cannot read: a view, no cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.lalm.scoring import output_head

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["readable"]

SOURCE = "nostalgebraist 2020, interpreting GPT: the logit lens"


@torch.no_grad()
def readable(case: ItemContext, states: list[Tensor], where: Tensor) -> np.ndarray:
    """logit(right) - logit(wrong), mean over the chosen tokens, behind each layer: float64 [layers + 1]."""
    norm, head = case.said.norm, output_head(case.lalm.model)
    if norm is None:
        raise ModelError("no norm stands at the end of the decoder: the lens has nothing to look through.")
    weight = head.weight[[case.decision.right, case.decision.wrong]].float()
    normed = [norm(state[where][None])[0].float().mean(0) for state in states]
    return np.array([float((weight[0] - weight[1]) @ mean) for mean in normed])


def _rise(case: ItemContext, states: list[Tensor], where: Tensor) -> np.ndarray:
    return np.diff(readable(case, states, where))[list(case.layers)]


def _formula(where: str) -> str:
    return f"rise through layer l of logit(right) - logit(wrong) read off {where} by last norm and head"


@criterion(
    "lens_audio", "logit lens at the sound", "attention", "either", "shares", "logits",
    _formula("the sound's states (mean)"), SOURCE,
)  # fmt: skip
def audio(case: ItemContext) -> np.ndarray:
    return _rise(case, case.states, case.prompt.groups["audio"][0])


@criterion(
    "lens_text", "logit lens at the text", "attention", "into text", "shares", "logits",
    _formula("the states of text before the last token (mean)"), SOURCE,
)  # fmt: skip
def text(case: ItemContext) -> np.ndarray:
    return _rise(case, case.watched.states, case.text)


@criterion(
    "lens_last", "logit lens at the last token", "attention", "out at the last token", "shares", "logits",
    _formula("the state of the deciding token"), SOURCE,
)  # fmt: skip
def last(case: ItemContext) -> np.ndarray:
    states = case.said.states
    return _rise(case, states, torch.arange(len(states[0]), device=states[0].device) == len(states[0]) - 1)
