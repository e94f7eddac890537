"""What a model computes from its inputs before the decoder's layers: a run that ends at the first layer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mata_interp.errors import ModelError

from .hooks import hidden_states_in, temporary_hooks
from .structure import ModelStructure

__all__ = ["Entry", "enter"]


@dataclass(frozen=True, eq=False)
class Entry:
    """How the decoder is called, and what enters its first layer.

    Attributes:
        call: the decoder's keyword arguments.
        states: hidden states before the first layer, [B, L, d] or, where a decoder carries several streams of
            them, [streams, B, L, d].
    """

    call: dict[str, Any]
    states: Tensor

    @property
    def embeds(self) -> Tensor:
        """Embeddings of tokens and audio [B, L, d]: the decoder's input, or computed by it from token ids."""
        embeds = self.call.get("inputs_embeds")
        return self.states if embeds is None else embeds

    def per_token(self, exceptions: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """The arguments that hold a value for every token, without those named in ``exceptions``."""
        length = self.embeds.shape[1]
        return {
            name: value
            for name, value in self.call.items()
            if name not in exceptions
            and isinstance(value, Tensor)
            and value.dim() >= 2
            and value.shape[1] == length
        }


class _FirstLayerReached(Exception):
    """Ends the run."""


def enter(model: Any, structure: ModelStructure, inputs: Mapping[str, Any]) -> Entry:
    """Run the model as far as its decoder's first layer.

    Raises:
        ModelError: the decoder is not called, or not in a way that is understood.
    """
    calls: list[dict[str, Any]] = []
    states: list[Tensor] = []

    def stop(args: tuple, kwargs: dict) -> None:
        states.append(hidden_states_in(args, kwargs))
        raise _FirstLayerReached

    hooks = [
        (structure.decoder, lambda args, kwargs: calls.append(kwargs)),
        (structure.blocks[0], stop),
    ]
    with temporary_hooks(hooks), suppress(_FirstLayerReached):
        model(**inputs, use_cache=False)
    if not states:
        raise ModelError(f"{type(model).__name__} ran without its first decoder layer.")
    return Entry(calls[0], states[0])
