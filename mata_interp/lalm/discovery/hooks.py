"""Hooks that last for one block of code, and what they read from the arguments of a module."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mata_interp.errors import ModelError

__all__ = [
    "decoder_input",
    "find_hidden_states",
    "hidden_states_in",
    "hidden_states_out",
    "replace_hidden_states",
    "temporary_hooks",
    "tokens_so_far",
]

Before = Callable[[tuple, dict], "tuple[tuple, dict] | None"]
"""``before(args, kwargs)``: what the module is called with instead, or None."""

After = Callable[[tuple, dict, Any], Any]
"""``after(args, kwargs, output)``: the module's output instead, or None."""

_NAMES = ("hidden_states", "input", "inputs_embeds", "x")  # keywords under which hidden states are passed


@contextmanager
def temporary_hooks(
    before: Iterable[tuple[nn.Module, Before]] = (), after: Iterable[tuple[nn.Module, After]] = ()
) -> Iterator[None]:
    """Inside, these functions are called before and after the forwards of their modules, by this thread.

    Forwards in other threads pass them by.
    """
    thread = threading.get_ident()

    def pre_hook(function: Before) -> Callable[..., Any]:
        def hook(_: Any, args: tuple, kwargs: dict) -> Any:
            return function(args, kwargs) if threading.get_ident() == thread else None

        return hook

    def post_hook(function: After) -> Callable[..., Any]:
        def hook(_: Any, args: tuple, kwargs: dict, output: Any) -> Any:
            return function(args, kwargs, output) if threading.get_ident() == thread else None

        return hook

    handles: list[Any] = []
    try:
        for module, function in before:
            handles.append(module.register_forward_pre_hook(pre_hook(function), with_kwargs=True))
        for module, function in after:
            handles.append(module.register_forward_hook(post_hook(function), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_hidden_states(args: tuple, kwargs: dict) -> Tensor | None:
    """The hidden states that a module is called with, passed by position or by keyword; None without any."""
    states = args[0] if args else kwargs.get(_keyword(kwargs) or "")
    return states if isinstance(states, Tensor) else None


def hidden_states_in(args: tuple, kwargs: dict) -> Tensor:
    """The hidden states that a module is called with, passed by position or by keyword.

    Raises:
        ModelError: there are none.
    """
    states = find_hidden_states(args, kwargs)
    if states is None:
        raise ModelError(f"A module is called without hidden states: its keywords are {', '.join(kwargs)}.")
    return states


def replace_hidden_states(args: tuple, kwargs: dict, states: Tensor) -> tuple[tuple, dict]:
    """The same arguments with other hidden states, passed in the same way."""
    if args:
        return (states, *args[1:]), kwargs
    return args, kwargs | {_keyword(kwargs) or _NAMES[0]: states}


def hidden_states_out(output: Any) -> Tensor:
    """The hidden states among what a module returns: its first output."""
    return output[0] if isinstance(output, tuple) else output


def _keyword(kwargs: dict) -> str | None:
    return next((name for name in _NAMES if isinstance(kwargs.get(name), Tensor)), None)


def decoder_input(args: tuple, kwargs: dict) -> tuple[Tensor, int]:
    """Of a call of the decoder: its B rows of Q tokens, [B, Q, ...], and how many tokens its cache holds."""
    tokens = next(t for t in (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args) if t is not None)
    cache = kwargs.get("past_key_values")
    return tokens, 0 if cache is None else int(cache.get_seq_length())


def tokens_so_far(args: tuple, kwargs: dict) -> int:
    """Tokens that the decoder has seen when this call of it ends: those in its cache and the new ones."""
    tokens, before = decoder_input(args, kwargs)
    return before + tokens.shape[1]
