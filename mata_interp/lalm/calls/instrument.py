"""Read and edit attention calls while a model runs. The one file that knows nnsight (0.8).

The site is the call of the attention function inside the attention module's forward: queries and keys are
rotated, normalised and cached there, and the model stays on SDPA or FlashAttention. nnsight reaches it as
``<attention module>.source.attention_interface_1``; the label is looked up, because its number counts
mentions.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from operator import call as invoke
from typing import Any, TypeVar

from nnsight import NNsight
from nnsight.intervention.interleaver import OutOfOrderError
from nnsight.intervention.source import STATE
from torch import Tensor, nn

from mata_interp.attention import AttentionCall
from mata_interp.errors import ModelError

from ..discovery.entry import given_to
from ..discovery.structure import ModelStructure
from .call import attention_call
from .interposed import interposable, interposed, missed

__all__ = ["Instrument", "Visit"]

Visit = Callable[[int, AttentionCall, int], "tuple[slice, Tensor] | None"]
"""``visit(layer, call, total)``: rows of the call and what to add to their output [B, R, H, Dv], or None."""

Result = TypeVar("Result")

_OURS = ("forward", STATE)  # what nnsight puts on a module


class Instrument:
    """nnsight around a decoder, built once for a model and gone unless :meth:`run` is running."""

    def __init__(self, structure: ModelStructure) -> None:
        names = {module: name for name, module in structure.decoder.named_modules()}
        self._structure, self._heads = structure, structure.heads
        self._names = {layer: names[module] for layer, module in structure.attention.items()}
        self._wrapping = _Wrapping(structure.decoder)
        self._sites: dict[int, Any] = {}

    def run(self, forward: Callable[[], Result], layers: Iterable[int], visit: Visit) -> Result:
        """Run ``forward()`` and visit the attention of ``layers`` whenever the decoder passes it.

        Args:
            forward: runs the model, once or many times (generation), in any way.
            layers: whose attention to visit; with none of them, this is a plain ``forward()``.
            visit: gets the layer, its attention call, and the number of tokens so far, these included.

        Returns:
            What ``forward()`` returns.

        Raises:
            ModelError: an attention call was not made, or has a term of the scores that is not understood.
        """
        return self._traced(forward, layers, visit, stop=False)[0]

    def edit(self, forward: Callable[[], Result], layers: Iterable[int], visit: Visit) -> Result:
        """The same as :meth:`run`, to the bit, in less time where the attention function has a name.

        So edits cost a token little; eager attention, which has none, is edited by way of nnsight.
        """
        modules = {self._structure.attention[layer]: layer for layer in layers}
        if not modules or not interposable(modules):
            return self.run(forward, modules.values(), visit)
        passes: list[int] = []  # tokens so far, of each pass

        def begin(args: tuple, kwargs: dict) -> None:
            passes.append(_total(args, kwargs))

        def on_call(layer: int, args: tuple, kwargs: dict) -> tuple[slice, Tensor] | None:
            return visit(layer, self._call(layer, args, kwargs, passes[-1]), passes[-1])

        with interposed(self._structure.decoder, modules, begin, on_call):
            result = forward()
        if not passes:
            raise ModelError(missed(min(modules.values())))
        return result

    def look(self, forward: Callable[[], object], layers: Iterable[int], visit: Visit) -> None:
        """As :meth:`run`, but the model is left once the last of ``layers`` was visited."""
        self._traced(forward, layers, visit, stop=True)

    def _traced(
        self, forward: Callable[[], Result], layers: Iterable[int], visit: Visit, stop: bool
    ) -> list[Result]:
        """What ``forward()`` returned, if it did."""
        layers = sorted(layers)
        if not layers:
            return [forward()]
        returned: list[Result] = []
        owed = list(layers)  # visits still to come in this pass of the decoder
        with warnings.catch_warnings(), suppress(OutOfOrderError), self._wrapping.on() as (decoder, new):
            if new:
                self._sites.clear()
            sites = [(layer, self._site(decoder, layer)) for layer in layers]
            # How many passes a generation makes is not known before; the loop ends when the run does.
            warnings.filterwarnings("ignore", message=".*the loop asked for a step the run did not make")
            with decoder.trace(lambda: returned.append(forward()), fn=invoke) as tracer:
                for _ in tracer.iter[:]:
                    total = _total(*decoder.inputs)
                    owed[:] = layers
                    for layer, site in sites:
                        change = visit(layer, self._call(layer, *site.inputs, total=total), total)
                        if change is not None:
                            rows, delta = change
                            site.output[0][:, rows] += delta  # (B, R, H, Dv), summed in float32
                        owed.pop(0)
                    if stop:
                        tracer.stop()
        if owed:
            raise ModelError(missed(owed[0]))
        return returned

    def _call(self, layer: int, args: tuple, kwargs: dict, total: int) -> AttentionCall:
        call = attention_call(layer, args, kwargs, total)
        if call.query.shape[1] != self._heads[layer]:
            raise ModelError(
                f"The attention of layer {layer} has {call.query.shape[1]} heads, and "
                f"{self._heads[layer]} were found in its module."
            )
        return call

    def _site(self, decoder: Any, layer: int) -> Any:
        if layer not in self._sites:
            envoy = decoder.get(self._names[layer])
            labels = [name for name in envoy.source.names if re.fullmatch(r"attention_interface_\d+", name)]
            if not labels:
                module = type(self._structure.attention[layer]).__name__
                raise ModelError(
                    f"{module}, the attention of layer {layer}, makes no `attention_interface` call."
                )
            self._sites[layer] = getattr(envoy.source, labels[-1])
        return self._sites[layer]


def _total(args: tuple, kwargs: dict) -> int:
    """Tokens the decoder has seen when this call of it ends: those in its cache and those it is given now."""
    given, before = given_to(args, kwargs)
    return before + given.shape[1]


class _Wrapping:
    """nnsight around a module while it is used, made when it is first asked for, and else not there at all.

    nnsight leaves a forward of its own on every part, which costs a token of plain generation some 5 % (12
    layers x 512). Between uses these are taken off: a model runs as if it had never been wrapped, and whoever
    else wraps it with nnsight finds it as it came.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._root: Any = None
        self._aside: dict[nn.Module, dict[str, Any]] = {}  # of each part of it, what nnsight put there

    @contextmanager
    def on(self) -> Iterator[tuple[Any, bool]]:
        """Inside, nnsight is around the module: its envoy, and whether it is a new one."""
        # a forward or a wrapping that someone has put there since goes below ours: wrap again
        taken = any(name in vars(part) for part in self._aside for name in _OURS)
        new = self._root is None or taken
        if new:
            self._aside = {
                part: {} for part in self._module.modules() if not any(n in vars(part) for n in _OURS)
            }
            self._root = NNsight(self._module)
        else:
            for part, kept in self._aside.items():
                vars(part).update(kept)
        try:
            yield self._root, new
        finally:
            for part, kept in self._aside.items():
                kept.update({name: vars(part).pop(name) for name in _OURS if name in vars(part)})
