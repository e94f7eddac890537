"""Which experts the tokens of a mixture use: read in one run, compared with and imposed on another.

A router picks the k experts with the highest scores. Where two scores are almost equal, rounding alone picks
another expert, and the token's states then change by far more than rounding, though both runs are correct.
Such flips are told from faults by running one run with the experts of the other: the difference that remains
is rounding, or a fault.

The choice is read and written where experts are called, which transformers does in one way for all but two of
its families: with the states of N tokens, the experts of each, integers [N, k], and their weights [N, k].
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
"""``choose(i, experts, weights)``: the choice of mixture i, both [N, k] -> another one, or None."""


@dataclass
class Flips:
    """How many choices of experts, one for each token and mixture, differ between two runs."""

    flipped: int = 0
    of: int = 0

    def __add__(self, other: Flips) -> Flips:
        return Flips(self.flipped + other.flipped, self.of + other.of)

    def __str__(self) -> str:
        return f"{self.flipped} of {self.of} choices of experts differ"


@dataclass(eq=False)
class Routing:
    """Which experts the tokens [B, L] of a run used.

    Attributes:
        experts: mixture (its number in the decoder) -> experts of each token, int [B, L, k].
        weights: mixture -> weights of these experts, [B, L, k].
        unread: mixtures that are called in another way than this file reads.
    """

    experts: dict[int, Tensor] = field(default_factory=dict)
    weights: dict[int, Tensor] = field(default_factory=dict)
    unread: set[int] = field(default_factory=set)

    def changed(self, change: Callable[[Tensor], Tensor]) -> Routing:
        """The same for other tokens: ``change`` maps [B, L, k] to [B, L', k]."""
        return Routing(
            experts={i: change(experts) for i, experts in self.experts.items()},
            weights={i: change(weights) for i, weights in self.weights.items()},
            unread=self.unread,
        )


def experts_of(blocks: nn.Module) -> list[nn.Module]:
    """The mixtures in a decoder's layers, in order: modules that hold the stacked weights of all experts.

    Experts that every token uses ("shared") are no mixture: there is nothing to choose.
    """

    def mixes(name: str, module: nn.Module) -> bool:
        stacked = any(weight.dim() == 3 for weight in module.parameters(recurse=False))
        return name == "experts" or (stacked and not is_convolution(module) and "shared" not in name)

    return [module for path, module in blocks.named_modules() if mixes(path.rsplit(".", 1)[-1], module)]


@contextmanager
def choosing(blocks: nn.Module, choose: Choose) -> Iterator[set[int]]:
    """Inside, ``choose`` is called with each choice of experts; gives the mixtures that were not read."""
    unread: set[int] = set()

    def hook(i: int) -> Callable[[tuple, dict], tuple[tuple, dict] | None]:
        def change_choice(args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
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

        return change_choice

    with temporary_hooks([(module, hook(i)) for i, module in enumerate(experts_of(blocks))]):
        yield unread


@contextmanager
def routed(structure: ModelStructure) -> Iterator[Routing]:
    """Inside, the experts of each token are recorded, pass after pass.

    A pass with a cache continues where the cache ends, and replaces what was recorded of later tokens.
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
    """What ``run()`` returns with the experts of another run, and how many of its own choices differ.

    Args:
        structure: of the model that runs.
        routing: of the other run, on the same first tokens; later tokens keep their own choice.
        real: bool [B, T], which tokens are not padding; correct runs need not agree in padding.
        run: one pass of the model over all T tokens.
    """
    if not routing.experts:
        return run(), Flips()
    for impose in (False, True):
        flips = Flips()
        with choosing(structure.blocks, _following(routing, real, flips, impose)):
            result = run()
        if not flips.flipped:
            break
    return result, flips


def _following(routing: Routing, real: Tensor, flips: Flips, impose: bool) -> Choose:
    """Count in ``flips`` the choices that differ from a routing's; with ``impose``, make them the same."""

    def choose(i: int, experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor] | None:
        if i not in routing.experts or len(experts) != real.numel():
            return None
        (batch, width), count = real.shape, routing.experts[i].shape[1]
        choices = experts.reshape(batch, width, -1)[:, :count]
        required = routing.experts[i][:, :width].to(choices)
        differs = (choices.sort(-1).values != required.sort(-1).values).any(-1) & real[:, :count].to(
            choices.device
        )
        flips.flipped += int(differs.sum())
        flips.of += int(real[:, :count].sum())
        if not impose:
            return None
        both = ((experts, required), (weights, routing.weights[i][:, :width]))
        led = (torch.cat([new.to(old), old.reshape(batch, width, -1)[:, count:]], 1) for old, new in both)
        first, second = (value.flatten(0, 1) for value in led)
        return first, second

    return choose


def _choice_among(arguments: list[Any]) -> tuple[int, int] | None:
    """The places of the expert numbers and of their weights among the arguments of a call of experts."""
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
