"""An edit in force while a model runs: what ``Editing`` returns is added to the attention calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor

from mata_interp.attention import AttentionCall

from ..discovery.structure import ModelStructure
from .attention_calls import Add, Backend, Run, attention_calls

__all__ = ["edited_calls"]


class Edits(Protocol):
    """Interventions bound to the prompts that run, such as :class:`mata_interp.interventions.Editing`."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose attention is edited."""
        ...

    def __call__(self, layer: int, call: AttentionCall, total: int) -> tuple[slice, Tensor] | None:
        """The rows of a call to change, and what to add to their output; None for no change."""
        ...


@contextmanager
def edited_calls(structure: ModelStructure, editing: Edits, backend: Backend = "direct") -> Iterator[Run]:
    """Intercept a model so that ``run(forward)`` runs a callable with the edit in force.

    Args:
        structure: of the model.
        editing: interventions bound to the prompts that run.
        backend: as in ``attention_calls``; both give the same bits.
    """

    def on_call(layer: int, call: AttentionCall, total: int) -> Add | None:
        change = editing(layer, call, total)
        return None if change is None else Add(*change)

    with attention_calls(structure, editing.layers, on_call, backend) as run:
        yield run
