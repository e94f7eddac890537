"""What a model makes of its inputs before its decoder's layers: a run as far as the first of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mata_interp.errors import ModelError

from .structure import ModelStructure

__all__ = ["Entry", "enter", "given_to"]


def given_to(args: tuple, kwargs: dict) -> tuple[Tensor, int]:
    """Of a call of the decoder: what it is given for B rows of Q tokens, [B, Q, ...], and how many tokens its
    cache holds before them."""
    given = next(t for t in (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args) if t is not None)
    cache = kwargs.get("past_key_values")
    return given, 0 if cache is None else int(cache.get_seq_length())


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
        """Embeddings of tokens and sound [B, L, d]: what the decoder is given, or what it makes itself."""
        given = self.call.get("inputs_embeds")
        return self.states if given is None else given

    def per_token(self, exceptions: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """The arguments that hold something for every token, besides these."""
        length = self.embeds.shape[1]
        return {
            name: value
            for name, value in self.call.items()
            if name not in exceptions
            and isinstance(value, Tensor)
            and value.dim() >= 2
            and value.shape[1] == length
        }


class _Entered(Exception):
    """The first decoder layer was reached: there is no need to go on."""


def enter(model: Any, structure: ModelStructure, inputs: Mapping[str, Any]) -> Entry:
    """Run the model as far as its decoder's first layer.

    Raises:
        ModelError: the decoder is not called, or not in a way that is understood.
    """
    calls: list[dict[str, Any]] = []
    states: list[Tensor] = []

    def stop(_: Any, args: tuple, kwargs: dict) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])
        raise _Entered

    handles = [
        structure.decoder.register_forward_pre_hook(lambda _, args, kw: calls.append(kw), with_kwargs=True),
        structure.blocks[0].register_forward_pre_hook(stop, with_kwargs=True),
    ]
    try:
        with suppress(_Entered):
            model(**inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if not states:
        raise ModelError(f"{type(model).__name__} ran without its first decoder layer.")
    return Entry(calls[0], states[0])
