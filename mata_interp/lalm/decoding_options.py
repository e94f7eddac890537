"""How an answer is generated, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..defaults import MAX_NEW_TOKENS
from ..errors import ArgumentError

__all__ = ["Decoding"]


@dataclass(frozen=True)
class Decoding:
    """How an answer is generated.

    Attributes:
        max_new_tokens: a longer answer is cut, which is recorded.
        temperature: 0 is greedy decoding; otherwise the logits are divided by it and a token is sampled.
        top_k: number of most probable tokens to sample from; 0: all of them.
        top_p: nucleus sampling: sample from the smallest set of tokens whose probability reaches top_p;
            1: all of them.
        seed: random seed. What is drawn is a function of seed, item id, position and token, so that a sample
            depends neither on the items beside it, nor on padding, order, restarts or the kind of device.

    Raises:
        ArgumentError: a value makes no sense.

    Example:
        >>> Decoding(temperature=0.7, top_p=0.9)
        Decoding(max_new_tokens=64, temperature=0.7, top_k=0, top_p=0.9, seed=0)
    """

    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("top_k", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ArgumentError(f"{name} is {value!r}: give a whole number of at least {least}.")
        for name, low, high in (("temperature", 0, 100), ("top_p", 1e-9, 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ArgumentError(f"{name} is {value!r}: it must lie between {low:g} and {high:g}.")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise ArgumentError("top_k and top_p are for sampling: pass a temperature above 0 with them.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON."""
        return asdict(self)
