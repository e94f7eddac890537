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

from .entry import given_to
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
        told = ({i: change(x) for i, x in kept.items()} for kept in (self.experts, self.weights))
        return Routing(*told, unread=self.unread)


def experts_of(blocks: nn.Module) -> list[nn.Module]:
    """The mixtures of a decoder's layers, in order: modules that hold the weights of all experts, stacked."""
    return [
        module
        for name, module in blocks.named_modules()
        if name.rsplit(".", 1)[-1] == "experts"
        or (
            any(weight.dim() == 3 for weight in module.parameters(recurse=False))
            and not isinstance(module, nn.modules.conv._ConvNd)
        )
    ]


@contextmanager
def choosing(blocks: nn.Module, choose: Choose) -> Iterator[set[int]]:
    """Inside, ``choose`` is asked whenever experts are called; gives the mixtures whose call was not read."""
    unread: set[int] = set()

    def hook(i: int) -> Callable[..., Any]:
        def ask(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            given = [*args, *kwargs.values()]
            places = _choice_among(given)
            if places is None:
                unread.add(i)
                return None
            chosen = choose(i, *(given[place] for place in places))
            if chosen is None:
                return None
            for place, value in zip(places, chosen, strict=True):
                given[place] = value.to(given[place])
            return tuple(given[: len(args)]), dict(zip(kwargs, given[len(args) :], strict=True))

        return ask

    handles = [
        m.register_forward_pre_hook(hook(i), with_kwargs=True) for i, m in enumerate(experts_of(blocks))
    ]
    try:
        yield unread
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def routed(structure: ModelStructure) -> Iterator[Routing]:
    """Inside, runs of the model write down which experts their tokens go to, pass after pass.

    A pass over a cache goes on where the cache ends, and what was written of later tokens is forgotten.
    """
    routing, now = Routing(), {"begin": 0, "batch": 1}

    def enter(_: Any, args: tuple, kwargs: dict) -> None:
        given, begin = given_to(args, kwargs)
        now.update(begin=begin, batch=len(given))

    def keep(i: int, *choice: Tensor) -> None:
        for kept, value in zip((routing.experts, routing.weights), choice, strict=True):
            value = value.detach().reshape(now["batch"], -1, value.shape[-1]).clone()
            before = kept[i][:, : now["begin"]] if i in kept else value[:, :0]
            kept[i] = torch.cat([before, value], 1)

    handle = structure.decoder.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        with choosing(structure.blocks, keep) as unread:
            yield routing
    finally:
        handle.remove()
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


def _choice_among(given: list[Any]) -> tuple[int, int] | None:
    """Where among the arguments of a call of experts their numbers and their weights are."""
    tensors = [(k, value) for k, value in enumerate(given) if isinstance(value, Tensor) and value.dim() == 2]
    for k, experts in tensors:
        if experts.is_floating_point() or experts.dtype == torch.bool:
            continue
        weights = [n for n, value in tensors if value.is_floating_point() and value.shape == experts.shape]
        if len(weights) == 1:
            return k, weights[0]
    return None
