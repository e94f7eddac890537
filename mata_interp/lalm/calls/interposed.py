"""Visit attention calls by standing in for the attention function, for some microseconds a call.

Transformers looks its attention function up by name in every call, so that one put under the same name sees
the call and its output, and nothing else about the model changes: not the name in its config, nor the masks
that are made for it. nnsight, which can stop a model anywhere and reach any of its values, visits the same
calls (:mod:`.instrument`), but takes a good millisecond for each pass: more than the whole edit of a token.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from transformers import AttentionInterface

from mata_interp.errors import ModelError

__all__ = ["interposable", "interposed", "missed"]

OnCall = Callable[[int, tuple, dict], "tuple[slice, Any] | None"]
"""``on_call(layer, args, kwargs)``: rows of the call and what to add to their output, or None."""


def interposable(modules: Mapping[Any, int]) -> bool:
    """Whether the attention of all these modules is looked up where :func:`interposed` can stand in.

    Eager attention is a function of each family's own that no table names; and a family may keep a table of
    its own.
    """
    return all(
        _name(module) in AttentionInterface._global_mapping
        and _name(module) not in getattr(_table(module), "_local_mapping", {})
        for module in modules
    )


@contextmanager
def interposed(
    decoder: Any, modules: Mapping[Any, int], begin: Callable[[tuple, dict], None], on_call: OnCall
) -> Iterator[None]:
    """Inside, each pass of the decoder calls ``begin``, and its attention ``on_call``.

    One at a time in a process: the table of attention functions belongs to all of its models. Those of other
    models that run meanwhile are passed on as they are.

    Args:
        decoder: begins a pass.
        modules: attention modules, and the layer of each.
        begin: gets the arguments of the decoder.
        on_call: gets the arguments of the attention function; what it returns is added to the output.

    Raises:
        ModelError: a pass did without the attention of one of the modules, or came to it twice.
    """
    owed: list[int] = []  # layers still to come in this pass

    def before(_: Any, args: tuple, kwargs: dict) -> None:
        owed[:] = sorted(modules.values())
        begin(args, kwargs)

    def after(*_: Any) -> None:
        if owed:
            raise ModelError(missed(owed[0]))

    def attention(own: Callable, module: Any, *args: Any, **kwargs: Any) -> Any:
        layer = modules.get(module)
        if layer is None:
            return own(module, *args, **kwargs)
        if layer not in owed:
            raise ModelError(f"The attention of layer {layer} is called twice, or outside of the decoder.")
        owed.remove(layer)
        change = on_call(layer, (module, *args), kwargs)
        output = own(module, *args, **kwargs)
        if change is not None:
            rows, delta = change
            output[0][:, rows] += delta  # (B, R, H, Dv), summed in float32
        return output

    table: Any = AttentionInterface._global_mapping
    before_us = {name: table[name] for name in {str(_name(module)) for module in modules}}
    handles = [
        decoder.register_forward_pre_hook(before, with_kwargs=True),
        decoder.register_forward_hook(after),
    ]
    try:
        for name, own in before_us.items():
            AttentionInterface.register(name, partial(attention, own))
        yield
    finally:
        for name, own in before_us.items():
            AttentionInterface.register(name, own)
        for handle in handles:
            handle.remove()


def missed(layer: int) -> str:
    """What is said of a run that did without a layer's attention."""
    return f"The model ran without calling the attention of decoder layer {layer}."


def _name(module: Any) -> str | None:
    """Of its attention function."""
    return getattr(getattr(module, "config", None), "_attn_implementation", None)


def _table(module: Any) -> Any:
    """The one of attention functions that its family looks into."""
    return getattr(sys.modules[type(module).__module__], "ALL_ATTENTION_FUNCTIONS", None)
