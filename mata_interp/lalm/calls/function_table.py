"""Functions that stand in for transformers' attention functions, by name, while someone intercepts them.

Transformers looks its attention function up by name in every call, in one table for all models of a process.
A name in use has one dispatcher in that table, which passes each call to the handlers of its module, or to
the function that stood there before. So any number of models can be intercepted at once, by several threads,
and interceptions may end in any order: the last one puts the table back. A name gets the same dispatcher
each time, so that what was compiled for it holds again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from mata_interp.compat import (
    attention_function_table,
    attention_mask_table,
    attention_name,
    eager_attention,
    family_overrides_attention,
    sdpa_mask,
    set_attention_name,
)
from mata_interp.errors import ModelError

__all__ = ["REPLACED", "can_be_handled", "configs_of", "handled_calls", "is_named", "replaced_attention"]

Handler = Callable[..., Any]
"""``handler(original, module, *args, **kwargs)``: a call of an attention function."""

REPLACED = "mata_interp"
"""The name under which configs select an attention that is replaced in every call."""

EAGER = "eager"

_guard = threading.RLock()


class _Dispatcher:
    """Stands in the table under one name; its handlers are those of the modules that are intercepted."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        self.handlers: dict[nn.Module, tuple[Handler, ...]] = {}

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        function = self.original
        for handler in self.handlers.get(module, ()):
            function = partial(handler, function)
        return function(module, *args, **kwargs)

    def add(self, handlers: Mapping[nn.Module, Handler]) -> None:
        for module, handler in handlers.items():
            self.handlers[module] = (*self.handlers.get(module, ()), handler)

    def remove(self, handlers: Mapping[nn.Module, Handler]) -> None:
        for module, handler in handlers.items():
            remaining = tuple(one for one in self.handlers[module] if one is not handler)
            if remaining:
                self.handlers[module] = remaining
            else:
                del self.handlers[module]


def can_be_handled(modules: Iterable[nn.Module]) -> bool:
    """Whether `handled_calls` reaches the attention of all these modules: it is named, or eager.

    Eager attention is intercepted under its name, too: the table is searched before the function
    of the modeling file is used.
    """
    eager = [attention_name(getattr(module, "config", None)) == "eager" for module in modules]
    named = [module for module, is_eager in zip(modules, eager, strict=True) if not is_eager]
    has_eager = [
        eager_attention(m) is not None for m, is_eager in zip(modules, eager, strict=True) if is_eager
    ]
    return all(has_eager) and is_named(named)


def is_named(modules: Iterable[nn.Module]) -> bool:
    """Whether the attention functions of all these modules are looked up in the shared table.

    Eager attention is a function of each modeling file that no table names; and a file may keep a table of
    its own for some names.
    """
    table = attention_function_table()
    names = [(module, attention_name(getattr(module, "config", None))) for module in modules]
    return all(
        name is not None and name in table and not family_overrides_attention(module, name)
        for module, name in names
    )


@contextmanager
def handled_calls(handlers: Mapping[nn.Module, Handler], name: str | None = None) -> Iterator[None]:
    """Inside, the attention calls of these modules go to their handlers.

    Args:
        handlers: handler of each module. Where a module has several, the one added last sees a call first.
        name: under which the modules look their function up; None: the name in each one's config.
    """
    by_name: dict[str, dict[nn.Module, Handler]] = {}
    for module, handler in handlers.items():
        by_name.setdefault(name or str(attention_name(module.config)), {})[module] = handler
    with _guard:
        used = [(one, _dispatcher(one), some) for one, some in by_name.items()]
        for _, dispatcher, some in used:
            dispatcher.add(some)
    try:
        yield
    finally:
        table = attention_function_table()
        with _guard:
            for one, dispatcher, some in used:
                dispatcher.remove(some)
                if not dispatcher.handlers and table.get(one) is dispatcher:
                    if one in (REPLACED, EAGER):
                        del table[one]
                    else:
                        table[one] = dispatcher.original


def _dispatcher(name: str) -> _Dispatcher:
    """The dispatcher in the table under a name, put there if none is.

    A function that another library registered meanwhile becomes the original of a new dispatcher.
    """
    table = attention_function_table()
    function = table.get(name, _own_eager if name == EAGER else _restored)
    if isinstance(function, _Dispatcher):
        return function
    dispatcher = _dispatchers.get(name)
    if dispatcher is None or dispatcher.original is not function or dispatcher.handlers:
        dispatcher = _dispatchers[name] = _Dispatcher(function)
    table[name] = dispatcher
    return dispatcher


_dispatchers: dict[str, _Dispatcher] = {}  # the last one of each name


def _own_eager(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The eager attention of a module's own file."""
    function = eager_attention(module)
    if function is None:
        raise ModelError(
            f"The eager attention of {type(module).__name__} is not known, and eager attention is "
            "intercepted in "
            "another model: use that model with attn_implementation='sdpa'."
        )
    return function(module, *args, **kwargs)


_replaced: dict[int, tuple[Any, str | None]] = {}  # id of a config -> the config and its name before


@contextmanager
def replaced_attention(configs: Iterable[Any], handlers: Mapping[nn.Module, Handler]) -> Iterator[None]:
    """Inside, these configs select an attention that the handlers replace, with the masks of SDPA.

    Raises:
        ModelError: the attention of one of the modules, or of their configs, is intercepted already.
    """
    configs = list(configs)
    masks = attention_mask_table()
    with _guard:
        if any(id(config) in _replaced for config in configs) or _handled(handlers):
            raise ModelError(
                "The attention of this model is intercepted already: end that interception before one that "
                "replaces its output."
            )
        for config in configs:
            _replaced[id(config)] = config, attention_name(config)
        masks[REPLACED] = sdpa_mask
    try:
        with handled_calls(handlers, REPLACED):
            for config in configs:
                set_attention_name(config, REPLACED)
            yield
    finally:
        with _guard:
            for config in configs:
                _, before = _replaced.pop(id(config))
                set_attention_name(config, before)
            if not _replaced:
                masks.pop(REPLACED, None)


def _handled(modules: Iterable[nn.Module]) -> bool:
    """Whether any of these modules has a handler."""
    dispatchers = [one for one in attention_function_table().values() if isinstance(one, _Dispatcher)]
    return any(module in dispatcher.handlers for module in modules for dispatcher in dispatchers)


def _restored(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """A call that is not intercepted, of a module whose config selects a replaced attention.

    Such are calls by other threads, and of other models that share a config. Their masks are SDPA's.
    """
    _, name = _replaced[id(module.config)]
    if name == "sdpa":
        return attention_function_table()[name](module, *args, **kwargs)
    raise ModelError(
        f"{type(module).__name__} runs while another thread, or another model with the same config, replaces "
        f"its attention ({name}). Run one after the other."
    )


def configs_of(modules: Iterable[nn.Module]) -> list[Any]:
    """The configs that say which attention function these modules call, each once."""
    configs = [config for module in modules if (config := getattr(module, "config", None)) is not None]
    return list({id(config): config for config in configs}.values())
