"""A prompt that ends in an open thought, brought to where the answer begins."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from mata_interp.errors import MataWarning, ModelError

from .decoding import end_of_sequence_ids
from .generation_settings import generation_arguments
from .prompting.prompts import Prompt
from .prompting.thinking import ThoughtState

if TYPE_CHECKING:
    from .model import LALM

__all__ = ["MAX_REASONING_TOKENS", "reason_through", "thinking_settings"]

MAX_REASONING_TOKENS = 1024
"""Longest reasoning, in tokens; what is longer is closed there."""


class ReasoningWarning(MataWarning):
    """The reasoning of some prompts was cut."""


@torch.inference_mode()
def reason_through(lalm: LALM, prompt: Prompt) -> Prompt:
    """The prompt with its thought closed, after the model's own reasoning where the prompt's mode says so.

    Args:
        lalm: the model.
        prompt: on the model's device, with an open thought.

    Warns:
        ReasoningWarning: some reasoning did not end within MAX_REASONING_TOKENS, and was closed there.

    Raises:
        ModelError: the prompt's mode is to refuse open thoughts.
    """
    thought = prompt.thought
    assert thought is not None
    if thought.mode == "refuse":
        raise ModelError(
            f"The chat template ends in an open thought, {thought.tags.open!r}: an answer scored or traced "
            "there would be inside the thought. Choose thinking='close' or thinking='through'."
        )
    if thought.mode == "close":
        return prompt.with_closed_thought()
    tokenizer = lalm.processor.tokenizer
    state = ThoughtState(tokenizer, thought.tags, prompt.size)
    stop = StoppingCriteriaList([_ThoughtClosed(state, prompt.width)])
    settings = {"max_new_tokens": MAX_REASONING_TOKENS, **generation_arguments(lalm.model)}
    sequences = lalm._run(
        lambda: lalm.model.generate(**prompt.inputs, stopping_criteria=stop, **settings), None
    )
    tokens = sequences[:, prompt.width :].cpu()
    ends = end_of_sequence_ids(lalm.model, tokenizer)
    rows = [_reasoning(tokens[row], state.open[row, 1:], ends) for row in range(prompt.size)]
    unclosed = sum(not closed for _, closed in rows)
    if unclosed:
        text = (
            f"{unclosed} of {prompt.size} thoughts did not end within {MAX_REASONING_TOKENS} tokens and were "
            "closed there."
        )
        warnings.warn(ReasoningWarning(text), stacklevel=3)
    after, closing = thought.after_close(tokenizer), thought.close_ids(tokenizer)
    thoughts = [ids_of_row.tolist() for ids_of_row, _ in rows]
    ids = [
        ids_of_row + (after if closed else closing)
        for ids_of_row, (_, closed) in zip(thoughts, rows, strict=True)
    ]
    width = max(map(len, ids))
    appended = torch.zeros(len(ids), width, dtype=torch.long)
    real, reasoning = torch.zeros(2, len(ids), width, dtype=torch.bool)
    for row, ids_of_row in enumerate(ids):
        appended[row, : len(ids_of_row)] = torch.tensor(ids_of_row, dtype=torch.long)
        real[row, : len(ids_of_row)] = True
        reasoning[row, : len(thoughts[row])] = True
    device = prompt.inputs["input_ids"].device
    appended, real, reasoning = (x.to(device) for x in (appended, real, reasoning))
    groups = {"generated": reasoning, "reasoning": reasoning, "template": real & ~reasoning}
    return prompt.continued(appended, real, groups)


def thinking_settings(lalm: LALM) -> dict[str, Any]:
    """What is done with the thought that the chat template opens, before options are compared."""
    if lalm.thinking != "through":
        return {"mode": lalm.thinking}
    return {"mode": lalm.thinking, "max_tokens": MAX_REASONING_TOKENS}


def _reasoning(tokens: Tensor, open_after: Tensor, ends: Tensor) -> tuple[Tensor, bool]:
    """The tokens of one thought, its closing tag included, and whether it has one."""
    closed = (~open_after).nonzero()[:, 0]
    if len(closed):
        return tokens[: int(closed[0]) + 1], True
    ended = torch.isin(tokens, ends).nonzero()[:, 0]
    return tokens[: int(ended[0]) if len(ended) else len(tokens)], False


class _ThoughtClosed(StoppingCriteria):
    """Ends every row at the end of its thought."""

    def __init__(self, state: ThoughtState, width: int) -> None:
        self._state, self._width = state, width

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self._state.add(input_ids[:, -1].tolist())
        return ~self._state.open[:, -1].to(input_ids.device)
