"""The logit lens: how far the answer can be decoded from states of the audio, the text and the last token.

nostalgebraist 2020 applies the last norm and the output head to the states after each layer. The criteria
take what each layer adds to the decoded margin. An answer that can be decoded early has not been used early,
and states may hold what the lens cannot decode: a view, not a cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import ModelError
from mata_interp.lalm.discovery.output_head import output_head, token_directions

from .registry import criterion

if TYPE_CHECKING:
    from ..item_context import ItemContext

__all__ = ["lens_margins"]

SOURCE = "nostalgebraist 2020, interpreting GPT: the logit lens"
FORMULA = "rise through layer l of logit(right) - logit(wrong) decoded from {} by last norm and head"


@torch.no_grad()
def lens_margins(context: ItemContext, states: list[Tensor], tokens: Tensor) -> np.ndarray:
    """logit(right) - logit(wrong) decoded after each layer, mean over tokens: float64 [layers + 1].

    Args:
        context: the item.
        states: hidden states before the first layer and after each, [S, d].
        tokens: which of them to decode, bool [S].

    Raises:
        ModelError: the decoder does not end with a norm.
    """
    norm, head = context.last_token_trace.norm, output_head(context.lalm.model)
    if norm is None:
        raise ModelError("the decoder does not end with a norm, which the logit lens applies to states.")
    places = tokens.cpu().nonzero()[:, 0]  # layers may be spread over devices
    outputs = [norm(state[places][None])[0] for state in states]
    rows = token_directions(head, [context.decision.right, context.decision.wrong], outputs[-1])
    direction = (rows[0] - rows[1]).to(outputs[-1].device)
    return np.array([float(direction @ output.float().mean(0)) for output in outputs])


def _rise(context: ItemContext, states: list[Tensor], tokens: Tensor) -> np.ndarray:
    return np.diff(lens_margins(context, states, tokens))[list(context.layers)]


@criterion(
    name="lens_audio",
    label="logit lens at the audio",
    evidence="attention",
    reads="either",
    window_rule="shares",
    unit="logits",
    formula=FORMULA.format("the states of audio tokens (mean)"),
    source=SOURCE,
    reads_states=True,
)
def lens_audio(context: ItemContext) -> np.ndarray:
    return _rise(context, context.prefill_states, context.prompt.groups["audio"][0])


@criterion(
    name="lens_text",
    label="logit lens at the text",
    evidence="attention",
    reads="into text",
    window_rule="shares",
    unit="logits",
    formula=FORMULA.format("the states of text before the last token (mean)"),
    source=SOURCE,
    runs_suffix=True,
)
def lens_text(context: ItemContext) -> np.ndarray:
    return _rise(context, context.suffix_trace.states, context.text_queries)


@criterion(
    name="lens_last",
    label="logit lens at the last token",
    evidence="attention",
    reads="out at the last token",
    window_rule="shares",
    unit="logits",
    formula=FORMULA.format("the state of the deciding token"),
    source=SOURCE,
)
def lens_last(context: ItemContext) -> np.ndarray:
    states = context.last_token_trace.states
    tokens = torch.arange(len(states[0]), device=states[0].device)
    return _rise(context, states, tokens == len(states[0]) - 1)


CRITERIA = (lens_audio, lens_text, lens_last)
