"""The state in which a model is used, whatever state it was left in: evaluation mode, not compiled, and with
the adapters that its family uses for the current prompt.

All of it is put back when the use ends, so that a training loop or another library finds its model as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from mata_interp.compat import (
    adapter_layers,
    forward_as_written,
    is_compiled,
    set_adapters_enabled,
    switches_adapters,
    uncompiled,
    without_compilation,
)

from ..discovery.hooks import temporary_hooks

__all__ = ["ready"]


@contextmanager
def ready(model: nn.Module, decoder: nn.Module) -> Iterator[None]:
    """Inside, a model computes the same whatever was done with it before.

    - Modules in training mode are in evaluation mode.
    - ``torch.compile`` is passed by: hooks and interceptions do not reach into compiled code. All passes run
      uncompiled then, the plain ones too, so that they can be compared.
    - In families whose ``generate`` switches an adapter on with audio and off without (Granite Speech), it is
      so in every pass.
    """
    modules = list(model.modules())
    training = [module for module in modules if module.training]
    with ExitStack() as stack:
        if training:
            stack.enter_context(_in_evaluation(training))
        if any(is_compiled(module) for module in modules):
            stack.enter_context(without_compilation())
            stack.enter_context(_forwards_as_written(modules))
        if switches_adapters(model):
            stack.enter_context(_adapters_follow_audio(model, decoder))
        yield


@contextmanager
def _in_evaluation(modules: list[nn.Module]) -> Iterator[None]:
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module in modules:
            module.training = True


@contextmanager
def _forwards_as_written(modules: list[nn.Module]) -> Iterator[None]:
    """Inside, modules have their forwards in place of compiled ones, so that their source can be read."""
    written = {m: forward for m in modules if (forward := forward_as_written(m)) is not None}
    # the forward of a module that torch.compile put around another is its only one
    written = {m: forward for m, forward in written.items() if uncompiled(m) is m}
    compiled = {module: vars(module)["forward"] for module in written}
    for module, forward in written.items():
        if getattr(forward, "__func__", None) is type(module).forward:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = forward
    try:
        yield
    finally:
        for module, forward in compiled.items():
            vars(module)["forward"] = forward


_HAS_AUDIO = "mata_interp_has_audio"  # attribute of a cache: whether there is audio among its tokens


@contextmanager
def _adapters_follow_audio(model: nn.Module, decoder: nn.Module) -> Iterator[None]:
    """Inside, adapters are on in passes over prompts with audio and what follows these, and off in others.

    A pass that continues from a cache does as the pass that began the cache: the cache carries a mark.
    """
    from ..discovery.audio_positions import audio_input_names  # which uses this file's locks

    layers = adapter_layers(model)
    before = [bool(layer.disable_adapters) for layer in layers]
    trainable = [(weight, weight.requires_grad) for layer in layers for weight in layer.parameters()]
    audio_now = False  # whether the current call of the model has audio

    def begin_model(args: tuple, kwargs: dict) -> None:
        nonlocal audio_now
        audio_now = bool(audio_input_names(kwargs))
        if audio_now:
            set_adapters_enabled(layers, [True] * len(layers))

    def begin_decoder(args: tuple, kwargs: dict) -> None:
        cache = kwargs.get("past_key_values")
        has_audio = getattr(cache, _HAS_AUDIO, None)
        has_audio = audio_now if has_audio is None else has_audio
        set_adapters_enabled(layers, [has_audio] * len(layers))
        if cache is not None:
            setattr(cache, _HAS_AUDIO, has_audio)

    def end_decoder(args: tuple, kwargs: dict, output: Any) -> None:
        cache = getattr(output, "past_key_values", None)
        if cache is not None and getattr(cache, _HAS_AUDIO, None) is None:
            setattr(cache, _HAS_AUDIO, audio_now)

    try:
        with temporary_hooks([(model, begin_model), (decoder, begin_decoder)], [(decoder, end_decoder)]):
            yield
    finally:
        set_adapters_enabled(layers, [not disabled for disabled in before])
        for weight, requires_grad in trainable:
            weight.requires_grad_(requires_grad)
