"""Random numbers that are a function of what they are for: seed, item, position and token.

A generator's numbers depend on how many were drawn before, and those of a device on its kind. These depend on
nothing else than their names: the same item has the same numbers whatever is beside it in the batch, however
it is padded, and on whichever device it runs. They are hashes of a counter (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"), here the finaliser of SplitMix64 (Steele et al. 2014; variant 13 of
Stafford's constants), in 64-bit integers, of which every device has the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["GumbelNoise"]

STEP = 0x9E3779B97F4A7C15  # 2 ** 64 divided by the golden ratio, odd: steps of a counter
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class GumbelNoise:
    """Standard Gumbel noise for every item, position and token.

    Args:
        seed: random seed.
        items: ids of the items.
        device: where the noise is needed.

    Examples:
        >>> here = GumbelNoise(0, ["a", "b"], torch.device("cpu"))
        >>> alone = GumbelNoise(0, ["b"], torch.device("cpu"))
        >>> bool((here.draw(3, 100)[1] == alone.draw(3, 100)[0]).all())
        True
    """

    def __init__(self, seed: int, items: Sequence[str], device: torch.device) -> None:
        self._keys = torch.tensor([_key(seed, item) for item in items], device=device)[:, None]  # (B, 1)

    def draw(self, position: int, tokens: int) -> Tensor:
        """Noise of every token at one position of the answers: float32 [B, tokens].

        Args:
            position: of the answers, from 0.
            tokens: size of the vocabulary.
        """
        keys = _hash(self._keys + _signed((position + 1) * STEP))
        counter = torch.arange(1, tokens + 1, device=keys.device)
        bits = _hash(keys + counter * _signed(STEP))
        # uniform on (0, 1): 53 bits, rounded to float32 so that small numbers keep all their digits
        uniform = ((_shifted(bits, 11)).float() + 0.5) * 2.0**-53
        exponential = -torch.log1p(-uniform.clamp(max=1 - 2.0**-24))
        return -exponential.log()


def _key(seed: int, item: str) -> int:
    """64 bits for a seed and an item."""
    digest = hashlib.sha256(f"{seed} {item}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _hash(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64; products of 64-bit integers wrap around on every device."""
    x = (x ^ _shifted(x, 30)) * _signed(FIRST)
    x = (x ^ _shifted(x, 27)) * _signed(SECOND)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A shift to the right that fills up with zeros, unlike that of signed integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The signed number with the same 64 bits."""
    word &= 2**64 - 1
    return word - 2**64 if word >= 2**63 else word
