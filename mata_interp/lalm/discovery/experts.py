"""Which experts the tokens of a mixture go to: read in one run, compared with and carried into another.

A router picks the k experts of highest score. Where two scores are all but equal, rounding alone picks
another, and what the token becomes is then another number altogether: two right runs may differ by far more
than rounding. Such flips can be told from faults by giving one run the other's experts: what is left between
the two is rounding again, and whatever else is wrong.

The choice is read and written where experts are called, which transformers does alike for all but two of its
families: with the states of N tokens, the experts of each, whole numbers [N, k], and their weights [N, k].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mata_interp.compat import is_convolution

from .hooks import decoder_input, temporary_hooks
from .structure import ModelStructure

__all__ = ["Choose", "Flips", "Routing", "agreeing", "choosing", "experts_of", "routed"]

Result = TypeVar("Result")
Choose = Callable[[int, Tensor, Tensor], "tuple[Tensor, Tensor] | None"]
"""``choose(i, experts, weights)``: what the i-th mixture's call gets, both [N, k], and what it is to get."""


@dataclass
class Flips:
    """How many choices of experts, one for each token and mixture, two runs made differently."""

    flipped: int = 0
    of: int = 0

    def __add__(self, other: Flips) -> Flips:
        return Flips(self.flipped + other.flipped, self.of + other.of)

    def __str__(self) -> str:
        return f"{self.flipped} of {self.of} choices of experts differ"


@dataclass(eq=False)
class Routing:
    """Which experts the tokens [B, L] of a run went to.

    Attributes:
        experts: of each mixture that was read, by its number in the decoder, int [B, L, k].
        weights: of these experts, [B, L, k].
        unread: mixtures that are not called with a choice as this file knows it.
    """

    experts: dict[int, Tensor] = field(default_factory=dict)
    weights: dict[int, Tensor] = field(default_factory=dict)
    unread: set[int] = field(default_factory=set)

    def changed(self, change: Callable[[Tensor], Tensor]) -> Routing:
        """With other tokens: ``change`` gets and gives [B, L, k]."""
        return Routing(
            experts={i: change(experts) for i, experts in self.experts.items()},
            weights={i: change(weights) for i, weights in self.weights.items()},
            unread=self.unread,
        )


def experts_of(blocks: nn.Module) -> list[nn.Module]:
    """The mixtures of a decoder's layers, in order: modules that hold the weights of all experts, stacked."""
    return [
        module
        for name, module in blocks.named_modules()
        if name.rsplit(".", 1)[-1] == "experts"
        or (
            any(weight.dim() == 3 for weight in module.parameters(recurse=False))
            and not is_convolution(module)
        )
    ]


@contextmanager
def choosing(blocks: nn.Module, choose: Choose) -> Iterator[set[int]]:
    """Inside, ``choose`` is asked whenever experts are called; gives the mixtures whose call was not read."""
    unread: set[int] = set()

    def hook(i: int) -> Callable[[tuple, dict], tuple[tuple, dict] | None]:
        def ask(args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            values = [*args, *kwargs.values()]
            places = _choice_among(values)
            if places is None:
                unread.add(i)
                return None
            chosen = choose(i, *(values[place] for place in places))
            if chosen is None:
                return None
            for place, value in zip(places, chosen, strict=True):
                values[place] = value.to(values[place])
            return tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True))

        return ask

    with temporary_hooks([(module, hook(i)) for i, module in enumerate(experts_of(blocks))]):
        yield unread


@contextmanager
def routed(structure: ModelStructure) -> Iterator[Routing]:
    """Inside, runs of the model write down which experts their tokens go to, pass after pass.

    A pass over a cache goes on where the cache ends, and what was written of later tokens is forgotten.
    """
    routing = Routing()
    current = {"begin": 0, "batch": 1}  # of the pass that runs

    def begin_pass(args: tuple, kwargs: dict) -> None:
        tokens, begin = decoder_input(args, kwargs)
        current.update(begin=begin, batch=len(tokens))

    def record(i: int, experts: Tensor, weights: Tensor) -> None:
        for recorded, value in ((routing.experts, experts), (routing.weights, weights)):
            value = value.detach().reshape(current["batch"], -1, value.shape[-1]).clone()
            before = recorded[i][:, : current["begin"]] if i in recorded else value[:, :0]
            recorded[i] = torch.cat([before, value], 1)

    with temporary_hooks([(structure.decoder, begin_pass)]):
        with choosing(structure.blocks, record) as unread:
            yield routing
        routing.unread = unread


def agreeing(
    structure: ModelStructure, routing: Routing, real: Tensor, run: Callable[[], Result]
) -> tuple[Result, Flips]:
    """What ``run()`` returns with the choices of another run, and how many of its own differ from those.

    Args:
        anatomy: of the model that runs.
        routing: of the other run, on the same tokens from the first on; further tokens choose for themselves.
        real: bool [B, T], which tokens are no padding, in which right runs need not agree.
        run: one pass of the model over all T tokens.
    """
    if not routing.experts:
        return run(), Flips()
    for lead in (False, True):
        flips = Flips()
        with choosing(structure.blocks, _following(routing, real, flips, lead)):
            result = run()
        if not flips.flipped:
            break
    return result, flips


def _following(routing: Routing, real: Tensor, flips: Flips, lead: bool) -> Choose:
    """Count into ``flips`` where choices differ from a routing's; with ``lead``, make them the same."""

    def choose(i: int, experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor] | None:
        if i not in routing.experts or len(experts) != real.numel():
            return None
        (batch, width), count = real.shape, routing.experts[i].shape[1]
        own = experts.reshape(batch, width, -1)[:, :count]
        wanted = routing.experts[i][:, :width].to(own)
        differs = (own.sort(-1).values != wanted.sort(-1).values).any(-1) & real[:, :count].to(own.device)
        flips.flipped += int(differs.sum())
        flips.of += int(real[:, :count].sum())
        if not lead:
            return None
        both = ((experts, wanted), (weights, routing.weights[i][:, :width]))
        led = (torch.cat([new.to(old), old.reshape(batch, width, -1)[:, count:]], 1) for old, new in both)
        first, second = (value.flatten(0, 1) for value in led)
        return first, second

    return choose


def _choice_among(arguments: list[Any]) -> tuple[int, int] | None:
    """Where among the arguments of a call of experts their numbers and their weights are."""
    tensors = [
        (k, value) for k, value in enumerate(arguments) if isinstance(value, Tensor) and value.dim() == 2
    ]
    for k, experts in tensors:
        if experts.is_floating_point() or experts.dtype == torch.bool:
            continue
        weights = [n for n, value in tensors if value.is_floating_point() and value.shape == experts.shape]
        if len(weights) == 1:
            return k, weights[0]
    return None
