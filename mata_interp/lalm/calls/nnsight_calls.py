"""Attention calls through nnsight, which can stop a model anywhere and reach any of its values.

The site is the call of the attention function inside the attention module's forward: queries and keys are
rotated, normalised and cached there, and the model stays on SDPA or FlashAttention. nnsight reaches it as
``<attention module>.source.attention_interface_1``; the label is looked up, because its number counts
mentions.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import call as invoke
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from nnsight import NNsight
from torch import nn

from mata_interp.compat import NNSIGHT_LOOP_END, OutOfOrderError, attention_call_labels, nnsight_module_names
from mata_interp.errors import ModelError

from ..discovery.hooks import tokens_so_far
from ..discovery.structure import ModelStructure

__all__ = ["traced_calls"]

Result = TypeVar("Result")
Visit = Callable[[int, tuple, dict, int], "tuple[slice, Any] | None"]
"""``visit(layer, args, kwargs, total)``: arguments of a call -> rows of its output, and what to add."""

# nnsight keeps process-wide state while it traces, and so do filters of warnings
_one_trace = threading.RLock()


class _Wrapping:
    """nnsight around a decoder: built when first used, and off the model between uses.

    nnsight leaves a forward of its own on every part, which costs a token of plain generation some 5 % (12
    layers x 512). Between uses the parts are as they were, so that a model runs as if it had never been
    wrapped, and whoever else wraps it with nnsight finds it unchanged.
    """

    def __init__(self, decoder: nn.Module, names: dict[int, str]) -> None:
        self._decoder, self._names = decoder, names
        self._root: Any = None
        self._sites: dict[int, Any] = {}
        self._before: dict[nn.Module, dict[str, Any]] = {}  # what each part had when it was wrapped
        self._during: dict[nn.Module, dict[str, Any]] = {}  # what it has while nnsight is on
        self._running = False

    @contextmanager
    def on(self) -> Iterator[Any]:
        """Inside, nnsight is around the decoder; gives its envoy."""
        if self._running:
            raise ModelError(
                "nnsight traces this model already: use backend='direct' for an interception inside another."
            )
        before = {part: _written_by_nnsight(part) for part in self._decoder.modules()}
        self._running = True
        try:
            # wrap again where a module, a forward or another wrapping was added since
            if self._root is None or not _same(before, self._before):
                self._sites.clear()
                self._root = NNsight(self._decoder)
                self._before = before
            else:
                for part, values in self._during.items():
                    vars(part).update(values)
            yield self._root
        finally:
            self._running = False
            self._during = {part: _written_by_nnsight(part) for part in before}
            for part, values in before.items():
                for name in nnsight_module_names():
                    if name in values:
                        vars(part)[name] = values[name]
                    else:
                        vars(part).pop(name, None)

    def site(self, layer: int, module: nn.Module) -> Any:
        """The attention call of a layer."""
        if layer not in self._sites:
            source = self._root.get(self._names[layer]).source
            labels = attention_call_labels(source.names)
            if not labels:
                raise ModelError(
                    f"{type(module).__name__}, the attention of layer {layer}, makes no "
                    "`attention_interface` call."
                )
            self._sites[layer] = getattr(source, labels[-1])
        return self._sites[layer]


def _written_by_nnsight(part: nn.Module) -> dict[str, Any]:
    return {name: vars(part)[name] for name in nnsight_module_names() if name in vars(part)}


def _same(first: dict[nn.Module, dict[str, Any]], second: dict[nn.Module, dict[str, Any]]) -> bool:
    """Whether two states of a decoder have the same modules with the same objects as attributes."""
    return first.keys() == second.keys() and all(
        values.keys() == second[part].keys()
        and all(value is second[part][name] for name, value in values.items())
        for part, values in first.items()
    )


_wrappings: WeakKeyDictionary[ModelStructure, _Wrapping] = WeakKeyDictionary()


def _wrapping(structure: ModelStructure) -> _Wrapping:
    if structure not in _wrappings:
        names = {module: name for name, module in structure.decoder.named_modules()}
        by_layer = {layer: names[module] for layer, module in structure.attention.items()}
        _wrappings[structure] = _Wrapping(structure.decoder, by_layer)
    return _wrappings[structure]


def traced_calls(
    structure: ModelStructure, forward: Callable[[], Result], layers: list[int], visit: Visit, stop: bool
) -> tuple[list[Result], int | None]:
    """Run ``forward()`` and visit the attention calls of these layers in each pass of the decoder.

    Args:
        layers: in ascending order, at least one.
        stop: leave the model as soon as the last of the layers was visited.

    Returns:
        What ``forward()`` returned, if it did, and the layer whose call is missing, if one is.
    """
    returned: list[Result] = []
    pending = list(layers)  # visits still to come in this pass of the decoder
    wrapping = _wrapping(structure)
    with _one_trace, warnings.catch_warnings(), suppress(OutOfOrderError), wrapping.on() as decoder:
        sites = [(layer, wrapping.site(layer, structure.attention[layer])) for layer in layers]
        # The number of passes of a generation is not known before; the loop ends when the run does.
        warnings.filterwarnings("ignore", message=NNSIGHT_LOOP_END)
        with decoder.trace(lambda: returned.append(forward()), fn=invoke) as tracer:
            for _ in tracer.iter[:]:
                total = tokens_so_far(*decoder.inputs)
                pending[:] = layers
                for layer, site in sites:
                    args, kwargs = site.inputs
                    change = visit(layer, args, kwargs, total)
                    if change is not None:
                        rows, delta = change
                        site.output[0][:, rows] += delta  # (B, R, H, Dv), summed in float32
                    pending.pop(0)
                if stop:
                    tracer.stop()
    return returned, pending[0] if pending else None
