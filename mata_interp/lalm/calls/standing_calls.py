"""Attention calls of a model, intercepted from now until ``close``, whoever runs the model.

`attention_calls` intercepts what is run through it. Here the model is run by others, in any thread, and who
intercepts says in which passes: those between ``begin`` and ``end``, in the thread that says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mata_interp.attention import AttentionCall
from mata_interp.errors import ModelError
from mata_interp.precision import full_precision

from ..discovery.hooks import decoder_input
from ..discovery.structure import ModelStructure
from .call import attention_call
from .function_table import can_be_handled, handled_calls

__all__ = ["StandingCalls", "outside_graphs"]

OnCall = Callable[[int, AttentionCall, int], "tuple[slice, Tensor] | None"]
OnPass = Callable[[int, int], None]


def outside_graphs(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as code made by torch.compile calls it: as it is written, the graph broken around it."""
    return torch.compiler.disable(function)


class StandingCalls:
    """Intercepts the attention calls of some layers until `close`.

    Args:
        structure: of the model.
        layers: whose attention to intercept.
        stray: called before a pass of the decoder that nobody has begun in this thread; it may raise.

    Raises:
        ModelError: the model's attention function cannot be stood in for.
    """

    def __init__(self, structure: ModelStructure, layers: Iterable[int], stray: Callable[[], None]) -> None:
        self._modules = {structure.attention[layer]: layer for layer in sorted(set(layers))}
        self._heads, self._stray = structure.heads, stray
        self._local = threading.local()
        if not can_be_handled(self._modules):
            module = next(iter(self._modules))
            raise ModelError(
                f"The attention of {type(module).__name__} is not looked up in transformers' table of "
                "attention functions, so that it cannot be intercepted: load the model with "
                "attn_implementation='sdpa'."
            )
        with ExitStack() as stack:
            stack.enter_context(handled_calls(dict.fromkeys(self._modules, outside_graphs(self._attention))))
            decoder = structure.decoder
            begin, end = outside_graphs(self._begin_decoder), outside_graphs(self._end_decoder)
            stack.callback(decoder.register_forward_pre_hook(begin, with_kwargs=True).remove)
            stack.callback(decoder.register_forward_hook(end, with_kwargs=True).remove)
            self._stack = stack.pop_all()

    def begin(self, on_pass: OnPass, on_call: OnCall) -> None:
        """From now to `end`, the calls in this thread go to ``on_call``.

        Args:
            on_pass: ``on_pass(before, count)``, called before each pass of the decoder: the tokens in its
                cache and those that it is given.
            on_call: ``on_call(layer, call, total)``: what to add to some rows of the output, float32
                [B, R, H, Dv], or None. It must not run the model.
        """
        self._local.current = _Pass(on_pass, on_call)

    def end(self) -> None:
        """The calls in this thread are left alone again."""
        self._local.current = None

    def close(self) -> None:
        """Put everything back."""
        self._stack.close()

    def _begin_decoder(self, _: nn.Module, args: tuple, kwargs: dict) -> None:
        current: _Pass | None = getattr(self._local, "current", None)
        if current is None:
            self._stray()
            return
        tokens, before = decoder_input(args, kwargs)
        count = tokens.shape[1]
        current.pending = list(self._modules.values())
        current.total = before + count
        current.on_pass(before, count)

    def _end_decoder(self, _: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        current: _Pass | None = getattr(self._local, "current", None)
        if current is not None and current.pending:
            raise ModelError(
                f"The model ran without calling the attention of decoder layer {current.pending[0]} as it "
                "did when interception began: its attention function must not be changed meanwhile."
            )

    def _attention(self, original: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """In place of an attention function."""
        current: _Pass | None = getattr(self._local, "current", None)
        if current is None:
            return original(module, *args, **kwargs)
        layer = self._modules[module]
        if layer not in current.pending:
            raise ModelError(f"The attention of layer {layer} is called twice, or outside of the decoder.")
        current.pending.remove(layer)
        call = attention_call(layer, (module, *args), kwargs, current.total)
        if call.query.shape[1] != self._heads[layer]:
            raise ModelError(
                f"The attention of layer {layer} has {call.query.shape[1]} heads, and "
                f"{self._heads[layer]} were found in its module."
            )
        with full_precision():
            change = current.on_call(layer, call, current.total)
        output = original(module, *args, **kwargs)
        if change is None:
            return output
        rows, delta = change
        # where gradients are wanted, the kernel's own output must stay as it is
        states = output[0].clone() if output[0].requires_grad else output[0]
        states[:, rows].add_(delta)  # (B, R, H, Dv), summed in float32
        return (states, *output[1:])


class _Pass:
    """One forward of the model in one thread."""

    def __init__(self, on_pass: OnPass, on_call: OnCall) -> None:
        self.on_pass, self.on_call = on_pass, on_call
        self.pending: list[int] = []  # layers still to come in this pass of the decoder
        self.total = 0  # tokens so far, those of this pass included
