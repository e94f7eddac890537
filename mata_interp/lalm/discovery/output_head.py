"""The output head of a model, and the directions in which it reads single tokens from a hidden state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mata_interp.errors import ModelError

from .hooks import hidden_states_in, replace_hidden_states, temporary_hooks

__all__ = ["is_plain", "last_position_only", "output_head", "token_directions"]


def output_head(model: Any) -> Any:
    """The module that computes logits from the decoder's output; None where no part of the model names it.

    Where a wrapper does not name its head, the language model in it does.
    """
    parts = (part for part in model.modules() if hasattr(part, "get_output_embeddings"))
    return next((head for part in parts if (head := part.get_output_embeddings()) is not None), None)


def is_plain(head: Any) -> bool:
    """Whether a head is a linear layer with plain weights, neither quantised, adapted nor offloaded."""
    weight: Any = getattr(head, "weight", None)
    plain = type(head) is nn.Linear and type(weight) in (Tensor, nn.Parameter)
    return plain and weight.dtype.itemsize > 1 and not weight.is_meta


def token_directions(head: Any, tokens: Sequence[int] | Tensor, states: Tensor) -> Tensor:
    """d logit / d state of some tokens: the rows of a plain head's weights, float32 [N, d].

    Of other heads (quantised, whose weights are packed; offloaded; with an adapter) it is the derivative of
    what the head computes, and where they have none, the rows of their dequantised weights.

    Args:
        head: from `output_head`.
        tokens: their N ids.
        states: hidden states as the head takes them, [..., d].

    Raises:
        ModelError: the head shows neither weights nor a derivative.
    """
    index = torch.as_tensor(tokens, device=states.device)
    if is_plain(head):
        return head.weight[index.to(head.weight.device)].detach().float()
    rows = _derivative(head, index, states)
    if rows is None:
        rows = _dequantised(head)[index.cpu()]
    return rows.detach().float()


def _derivative(head: Any, index: Tensor, states: Tensor) -> Tensor | None:
    """The derivative of the tokens' logits at a state, [N, d]; None where the head has no backward pass."""
    with torch.inference_mode(False), torch.enable_grad():
        state = states.detach().reshape(-1, states.shape[-1])[-1:].clone()[None].requires_grad_()
        try:
            logits = head(state)[0, 0]
            if not logits.requires_grad:
                return None
            rows = [torch.autograd.grad(logits[token], state, retain_graph=True)[0] for token in index]
        except (RuntimeError, NotImplementedError):
            return None
    return torch.cat([row.reshape(1, -1) for row in rows])


def _dequantised(head: Any) -> Tensor:
    """The weights of a head in full precision, [V, d], on the CPU."""
    weight = getattr(head, "weight", None)
    weight = weight() if callable(weight) else weight
    if not isinstance(weight, Tensor) or not hasattr(weight, "dequantize"):
        raise ModelError(
            f"The output head, a {type(head).__name__}, shows neither weights nor a derivative: logits "
            "cannot be attributed to states on this model."
        )
    return weight.detach().dequantize().cpu()


@contextmanager
def last_position_only(model: Any) -> Iterator[None]:
    """Inside, the output head computes the logits of the last position only."""
    head = output_head(model)
    if head is None:
        yield
        return

    def cut(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return replace_hidden_states(args, kwargs, hidden_states_in(args, kwargs)[:, -1:])

    with temporary_hooks([(head, cut)]):
        yield
